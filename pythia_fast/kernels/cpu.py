"""The native CPU kernels: what the forward pass does, on panels of sixteen tokens.

Activations are feature-major, one token to a lane of a vector, so that nothing along the features
needs a shuffle and a product's result is the next product's input. Weights are read where they lie
in the arena, whatever their dtype, or from packed copies, which is faster. An arithmetic says how
products are taken:

- "float32": float32 multiply-adds, on any processor;
- "bfloat16": AMX tiles, activations rounded to bfloat16, sums in float32;
- "split-bf16": AMX tiles on float32 numbers, each split into a sum of two bfloat16 (a float16
  weight is exactly such a sum); three products of four, so errors are about 2^-16 of a term.

The residual stream, LayerNorm, softmax and all sums are float32 in each. Results depend neither on
the number of threads nor on what else is in a batch.
B batch, T time, P panels, L = 16 lanes, D width, H heads, K head width, F feed-forward width,
V vocabulary rows.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from pythia_fast.core import CpuEngine, PackedWeight, instruction_sets
from pythia_fast.kernels import Gelu
from pythia_fast.kernels.panels import LANES, Heads, KeyValues, Operand, PanelRope
from pythia_fast.kernels.scores import TokenScores

Arithmetic = Literal["float32", "bfloat16", "split-bf16"]

Matrix = torch.Tensor | PackedWeight
"""What a product multiplies by: a weight as it is, or as `CpuKernels.pack` has made it."""

STORED = frozenset((torch.float32, torch.bfloat16, torch.float16))
"""The dtypes in which the kernels take matrices."""

MAX_HEAD_DIM = 256


def has_amx() -> bool:
    """Whether this processor multiplies tiles of bfloat16, which two of the arithmetics need."""
    return "amx" in instruction_sets()


def default_arithmetic(dtype: torch.dtype) -> Arithmetic:
    """How weights of a dtype are multiplied on this processor where nothing else was asked for."""
    return "bfloat16" if dtype == torch.bfloat16 and has_amx() else "float32"


class CpuKernels:
    """The kernels of one arithmetic; `instructions` forces one of `core.instruction_sets()`.

    ArgumentError if the processor cannot. Every call uses torch's number of threads.
    """

    def __init__(self, arithmetic: Arithmetic, *, instructions: str | None = None) -> None:
        self.arithmetic = arithmetic
        self._engine = CpuEngine(arithmetic, instructions=instructions)
        self.value_bytes = self._engine.planes * self._engine.element_bytes

    def operand(self, rows: int, panels: int) -> Operand:
        """Room for `rows` features of `panels` panels, an even number."""
        # Products read the rows that pad, too, and 0 · NaN is NaN: they must be numbers.
        make = _zeros if rows % 32 else _empty
        return Operand(make(self._floats_of(rows, panels)), rows, panels)

    def embed(self, ids_PL: torch.Tensor, table_VD: torch.Tensor, x_PDL: torch.Tensor) -> None:
        """Rows of the embedding into x."""
        self._engine.embed(
            _array(table_VD), _int32(ids_PL), x_PDL.numpy(), len(ids_PL), torch.get_num_threads()
        )

    def pack(
        self,
        w_CD: torch.Tensor,
        *,
        into: PackedWeight | None = None,
        head_dim: int = 0,
        rotary_dims: int = 0,
    ) -> PackedWeight:
        """A copy of a matrix as products read it; their results are the same.

        `into` is one of the same shape that is packed anew. The weight of `heads` needs the heads'
        width and how many of their dimensions turn.
        """
        return self._engine.pack(
            *(_array(w_CD), torch.get_num_threads()),
            into=into,
            features=head_dim,
            rotary=rotary_dims,
        )

    def pick(self, x_ND: torch.Tensor, rows_N: torch.Tensor | None = None) -> Operand:
        """Rows of a matrix, all or those with the given numbers, in order, as an operand."""
        if rows_N is None:
            rows_N = torch.arange(len(x_ND), dtype=torch.int32, device="cpu")
        panels = -(-len(rows_N) // (2 * LANES)) * 2
        numbers_PL = torch.full((panels, LANES), -1, dtype=torch.int32, device="cpu")
        numbers_PL.view(-1)[: len(rows_N)] = rows_N
        out = self.operand(x_ND.shape[1], panels)
        self._engine.pick(
            _array(x_ND), numbers_PL.numpy(), out.data.numpy(), torch.get_num_threads()
        )
        return out

    def norm(
        self,
        x_PDL: torch.Tensor,
        norms: Sequence[tuple[torch.Tensor, torch.Tensor]],
        epsilon: float,
        outs: Sequence[Operand],
    ) -> None:
        """One or two LayerNorms of x, (weight, bias) each, into `outs`; x is read once."""
        _, width, _ = x_PDL.shape
        self._engine.norm(
            x_PDL.numpy(),
            epsilon,
            [_floats(weight_D) for weight_D, _ in norms],
            [_floats(bias_D) for _, bias_D in norms],
            [out.data.numpy() for out in outs],
            width,
            torch.get_num_threads(),
        )

    def room_for_heads(self, sequences: int, heads: int, width: int, panels: int) -> Heads:
        """Room for queries, keys and values; `width` is a head's, `panels` a sequence's."""
        count = sequences * heads * self._floats_of(width, -(-panels // 2) * 2)
        # Values of a missing last panel are multiplied with zeros: they must be numbers.
        make = _zeros if panels % 2 else _empty
        queries, keys, values = (make(count) for _ in range(3))
        return Heads(queries, keys, values, (sequences, heads, width, panels))

    def heads(
        self, x: Operand, w_CD: Matrix, b_C: torch.Tensor, rope: PanelRope, to: Heads
    ) -> None:
        """Rotated queries and keys, and values, of the projection laid out [H, 3, K]."""
        self._engine.heads(
            x.data.numpy(),
            _factor(w_CD),
            _floats(b_C),
            rope.cosines.numpy(),
            rope.sines.numpy(),
            rope.rotary_dims,
            rope.positions,
            to.queries.numpy(),
            to.keys.numpy(),
            to.values.numpy(),
            to.shape,
            torch.get_num_threads(),
            each_its_own=rope.each_its_own,
        )

    def room_for_keys(self, sequences: int, heads: int, width: int, positions: int) -> KeyValues:
        """Room for keys and values of so many positions; `width` is a head's."""
        shape = sequences, self.key_value_bytes(heads, width, positions) // 8
        # Values of positions to come are multiplied with zeros: they must be numbers.
        return KeyValues(_empty(*shape), _zeros(*shape), heads, width, positions)

    def key_value_bytes(self, heads: int, width: int, positions: int) -> int:
        """What the keys and values of one sequence take in `room_for_keys`."""
        return 8 * heads * self._floats_of(width, -(-positions // (2 * LANES)) * 2)

    def heads_into(self, cache: KeyValues, panels: int) -> Heads:
        """What `heads` fills and `attention` reads, its keys and values being the cache's."""
        sequences = len(cache.keys_BX)
        each = self._floats_of(cache.width, -(-panels // 2) * 2)
        queries = _empty(sequences * cache.heads * each)
        shape = sequences, cache.heads, cache.width, panels
        return Heads(queries, cache.keys_BX, cache.values_BX, shape)

    def decode(
        self, qkv_PCL: torch.Tensor, rope: PanelRope, position: int, cache: KeyValues, out: Operand
    ) -> None:
        """Attention of one more token of each sequence, all at `position`; the cache takes it up.

        qkv [P, 3D, L] is their projection, the lanes being sequences; the result is the first H·K
        rows of `out`.
        """
        self._engine.decode(
            qkv_PCL.numpy(),
            rope.cosines.numpy(),
            rope.sines.numpy(),
            rope.rotary_dims,
            rope.positions,
            position,
            cache.keys_BX.numpy(),
            cache.values_BX.numpy(),
            (len(cache.keys_BX), cache.heads, cache.width),
            out.data.numpy(),
            out.rows,
            torch.get_num_threads(),
        )

    def project(self, x: Operand, w_CD: Matrix, b_C: torch.Tensor | None = None) -> torch.Tensor:
        """W x + b as float32 panels, [P, C, L]."""
        rows = w_CD.rows if isinstance(w_CD, PackedWeight) else len(w_CD)
        to_PCL = _empty(x.panels, rows, LANES)
        self._engine.project(
            x.data.numpy(),
            _factor(w_CD),
            None if b_C is None else _floats(b_C),
            to_PCL.numpy(),
            torch.get_num_threads(),
        )
        return to_PCL

    def attention(self, heads: Heads, out: Operand, end_BX: torch.Tensor | None = None) -> None:
        """softmax(q kᵀ / sqrt(K)) v, causal, into the first H·K rows of `out`.

        Or in a tree: `end_BX` is of `panels.ends_of`, up to where each token is seen. ArgumentError
        for an end that is not beyond its token, or if the first token is not seen by all.
        """
        self._engine.attention(
            heads.queries.numpy(),
            heads.keys.numpy(),
            heads.values.numpy(),
            heads.shape,
            out.data.numpy(),
            out.rows,
            torch.get_num_threads(),
            ends=None if end_BX is None else _int32(end_BX),
        )

    def mlp(
        self,
        x: Operand,
        w_FD: Matrix,
        b_F: torch.Tensor,
        gelu: Gelu,
        out: Operand,
        out_row: int,
    ) -> None:
        """gelu(W x + b) into rows `out_row` and on of `out`."""
        self._engine.mlp(
            x.data.numpy(),
            _factor(w_FD),
            _floats(b_F),
            gelu,
            out.data.numpy(),
            out.rows,
            out_row,
            torch.get_num_threads(),
        )

    def residual_(self, x_PDL: torch.Tensor, a: Operand, w_DE: Matrix, b_D: torch.Tensor) -> None:
        """Add W a + b to x, in place; the branches are summed before x is added."""
        self._engine.residual(
            a.data.numpy(), _factor(w_DE), _floats(b_D), x_PDL.numpy(), torch.get_num_threads()
        )

    def unpack(self, x_PDL: torch.Tensor) -> torch.Tensor:
        """The tokens' rows, [16 P, D] float32."""
        panels, width, _ = x_PDL.shape
        rows_ND = _empty(panels * LANES, width)
        self._engine.unpack(x_PDL.numpy(), rows_ND.numpy(), panels, width, torch.get_num_threads())
        return rows_ND

    def nll(self, h: Operand, w_VD: Matrix, y_N: torch.Tensor) -> torch.Tensor:
        """Nats of the first N tokens' targets, [N] float32: logsumexp(W h) - (W h)[y]."""
        nll_N = _empty(len(y_N))
        self._engine.scores(
            *(h.data.numpy(), _factor(w_VD), _targets(y_N, h.panels), len(y_N), nll_N.numpy()),
            *(None, None, None, None, torch.get_num_threads()),
        )
        return nll_N

    def scores(self, h: Operand, w_VD: Matrix, y_N: torch.Tensor) -> TokenScores:
        """All scores of the first N tokens' targets, [N] each; logits are never in memory."""
        count = len(y_N)
        scores = TokenScores(
            nll=_empty(count),
            logsumexp=_empty(count),
            target_logit=_empty(count),
            argmax=torch.empty(count, dtype=torch.int64, device="cpu"),
            margin=_empty(count),
        )
        self._engine.scores(
            *(h.data.numpy(), _factor(w_VD), _targets(y_N, h.panels), count),
            scores.nll.numpy(),
            scores.logsumexp.numpy(),
            scores.target_logit.numpy(),
            scores.argmax.numpy(),
            scores.margin.numpy(),
            torch.get_num_threads(),
        )
        return scores

    def _floats_of(self, rows: int, panels: int) -> int:
        """What an operand of so many features and panels takes, in numbers of four bytes."""
        padded = -(-rows // 32) * 32
        values = panels * padded * LANES
        return values * self.value_bytes // 4


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever the defaults are


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _array(weight: torch.Tensor) -> npt.NDArray[np.generic]:
    """A matrix as numpy sees it: bfloat16, which it lacks, as uint16."""
    weight = weight.detach()
    if weight.dtype == torch.bfloat16:
        weight = weight.view(torch.uint16)
    return weight.numpy()


def _factor(weight: Matrix) -> npt.NDArray[np.generic] | PackedWeight:
    return weight if isinstance(weight, PackedWeight) else _array(weight)


def _floats(vector: torch.Tensor) -> npt.NDArray[np.float32]:
    return vector.detach().float().numpy()


def _int32(ids_PL: torch.Tensor) -> npt.NDArray[np.int32]:
    return ids_PL.to(torch.int32).contiguous().numpy()


def _targets(y_N: torch.Tensor, panels: int) -> npt.NDArray[np.int32]:
    padded = torch.zeros(panels * LANES, dtype=torch.int32, device="cpu")
    padded[: len(y_N)] = y_N
    return padded.numpy()
