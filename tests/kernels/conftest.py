"""What the tests of kernels share.

Scratch memory from `torch.empty` comes full of NaN, so that nothing unset goes unnoticed; and the
native kernels come in every arithmetic and instruction set that this machine has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from pythia_fast.core import instruction_sets
from pythia_fast.kernels.cpu import CpuKernels, Matrix
from pythia_fast.kernels.panels import LANES, Operand, PanelRope, ends_of, panelled
from pythia_fast.kernels.rotary import Rope

PAIRS = [("float32", isa) for isa in ("portable", "avx2", "avx512") if isa in instruction_sets()]
if "amx" in instruction_sets():
    PAIRS += [("bfloat16", "amx"), ("split-bf16", "amx")]
STORED = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Native:
    """The kernels of one arithmetic on one instruction set, and what they may get wrong."""

    arithmetic: str
    instructions: str
    kernels: CpuKernels

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What the arithmetic makes of a product's factors, as float64: bfloat16 rounds them."""
        return x.bfloat16().double() if self.arithmetic == "bfloat16" else x.double()

    def torchs(self, x: torch.Tensor) -> torch.Tensor:
        """The factors as torch multiplies them in the comparable dtype, float32: AMX sums in it."""
        return self.kept(x).float()

    def left_out(self, x_NK: torch.Tensor, w_CK: torch.Tensor) -> torch.Tensor | float:
        """A bound of what split-bf16 leaves out of x wᵀ, [N, C].

        bfloat16 rounds to nearest with 8 bits: |x - hi| ≤ 2^-8 |x|, |x - hi - lo| ≤ 2^-16 |x|, and
        so for w. Of a term x w are left out lo lo and the two rests, at most 3 · 2^-16 |x| |w|.
        """
        if self.arithmetic != "split-bf16":
            return 0.0
        return 3 * 2.0**-16 * (x_NK.double().abs() @ w_CK.double().abs().T)

    def left_out_of_attention(
        self, x_BTD: torch.Tensor, w_CD: torch.Tensor, qkv_BTC: torch.Tensor, H: int
    ) -> torch.Tensor | float:
        """A bound of what split-bf16 leaves out, [B, T, H K].

        With the projection's share e and δ the largest error of a score, by Cauchy and Schwarz
        (turning changes no length) at most (|e_q| |k| + |q| |e_k| + 3 · 2^-16 |q| |k|) / √K, a
        probability p is wrong by (e^2δ - 1) p, and the sum over values by
        (e^2δ - 1 + 3 · 2^-16) p |v| + e_v.
        """
        if self.arithmetic != "split-bf16":
            return 0.0
        B, T, C = qkv_BTC.shape
        K = C // (3 * H)
        share_BTC = self.left_out(x_BTD.flatten(0, 1), w_CD)
        e_q, e_k, e_v = share_BTC.view(B, T, H, 3, K).unbind(3)
        q, k, v = qkv_BTC.view(B, T, H, 3, K).unbind(3)
        q_BH, k_BH, e_q_BH, e_k_BH = (part.norm(dim=-1).amax(1) for part in (q, k, e_q, e_k))
        delta_BH = (e_q_BH * k_BH + q_BH * e_k_BH + 3 * 2.0**-16 * q_BH * k_BH) / K**0.5
        wrong_BH = torch.expm1(2 * delta_BH) + 3 * 2.0**-16
        largest_BHK, e_v_BHK = v.abs().amax(1), e_v.amax(1)
        return (wrong_BH[..., None] * largest_BHK + e_v_BHK).reshape(B, 1, H * K)

    def operand(self, h_ND: torch.Tensor) -> Operand:
        """Rows as an operand, by its definition in csrc/cpu/operand.h; an even number of panels."""
        x_PDL = panelled(h_ND.float())
        panels, width, _ = x_PDL.shape
        out = self.kernels.operand(width, panels)
        padded = -(-width // 32) * 32
        x_PDL = torch.cat((x_PDL, torch.zeros(panels, padded - width, LANES)), 1)
        if self.arithmetic == "float32":
            out.data.copy_(x_PDL.flatten())
            return out
        planes = [x_PDL.bfloat16()]
        if self.arithmetic == "split-bf16":
            planes.append((x_PDL - planes[0].float()).bfloat16())
        pairs = torch.stack(planes).view(-1, padded // 2, 2, LANES).transpose(2, 3)
        out.data.view(torch.bfloat16).copy_(pairs.flatten())
        return out

    def rows(self, operand: Operand) -> torch.Tensor:
        """All that an operand holds, padding too: [16 P, padded rows] float64."""
        padded = -(-operand.rows // 32) * 32
        if self.arithmetic == "float32":
            x_PDL = operand.data.view(operand.panels, padded, LANES).double()
        else:
            planes = operand.data.view(torch.bfloat16).double()
            pairs = planes.view(-1, operand.panels, padded // 2, LANES, 2).sum(0)
            x_PDL = pairs.transpose(2, 3).reshape(operand.panels, padded, LANES)
        return x_PDL.transpose(1, 2).reshape(-1, padded)

    def embed(self, ids_PL: torch.Tensor, table_VD: torch.Tensor) -> torch.Tensor:
        x_PDL = torch.empty(len(ids_PL), table_VD.shape[1], LANES)
        self.kernels.embed(ids_PL, table_VD, x_PDL)
        return x_PDL

    def norm(
        self, x_PDL: torch.Tensor, norms: list[tuple[torch.Tensor, torch.Tensor]], eps: float
    ) -> list[Operand]:
        panels, width, _ = x_PDL.shape
        outs = [self.kernels.operand(width, panels) for _ in norms]
        self.kernels.norm(x_PDL, norms, eps, outs)
        return outs

    def attention(
        self,
        x_BTD: torch.Tensor,
        w_CD: Matrix,
        b_C: torch.Tensor,
        heads: int,
        rope: Rope,
        end_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Projection, rotation and attention of whole sequences, [B, T, H K] float64.

        Or of trees, with the tables at their tokens' positions.
        """
        B, T, D = x_BTD.shape
        each, width = -(-T // LANES), len(b_C) // 3
        padded_BTD = torch.zeros(B, each * LANES, D)
        padded_BTD[:, :T] = x_BTD
        x = self.operand(padded_BTD.view(-1, D))
        room = self.kernels.room_for_heads(B, heads, width // heads, each)
        self.kernels.heads(x, w_CD, b_C, PanelRope(rope), room)
        out = self.kernels.operand(width, x.panels)
        self.kernels.attention(room, out, None if end_BT is None else ends_of(end_BT))
        return self.rows(out)[: B * each * LANES].view(B, each * LANES, -1)[:, :T, :width]

    def check(
        self,
        got: torch.Tensor,
        expected: torch.Tensor,
        torchs: torch.Tensor,
        left_out: torch.Tensor | float = 0.0,
    ) -> None:
        """Twice torch's own error, and what the arithmetic leaves out on purpose.

        Values are of size one. Torch's may be of more tokens than ours: its luck with a single one
        is no yardstick.
        """
        assert got.dtype in (torch.float32, torch.float64)
        assert got.shape[1:] == expected.shape[1:]
        error = (got.double() - expected[: len(got)]).abs()
        torch_error = (torchs.double() - expected).abs().max()
        excess = (error - left_out).max()
        assert excess <= 2 * torch_error + 1e-6, f"{excess:.3g}, torch's {torch_error:.3g}"


@pytest.fixture(scope="session", params=PAIRS, ids="-".join)
def native(request: pytest.FixtureRequest) -> Native:
    arithmetic, instructions = request.param
    return Native(arithmetic, instructions, CpuKernels(arithmetic, instructions=instructions))


@pytest.fixture(scope="session", params=STORED, ids=lambda dtype: str(dtype).split(".")[1])
def stored(request: pytest.FixtureRequest) -> torch.dtype:
    """What weights are stored in."""
    dtype: torch.dtype = request.param
    return dtype


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """A test that sets torch's number of threads leaves none of its own behind."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
