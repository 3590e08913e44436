"""The products of a block with what goes around them, beside cuBLAS and torch's operations for it.

N rows, D width, F = 4D, O outputs and I inputs of a product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from roofline import Work
from torch.nn.functional import gelu, layer_norm, linear

from on_gpu.bench import Bench, name_of
from pythia_fast.kernels import reference
from pythia_fast.kernels.gpu import linear as ours_linear
from pythia_fast.kernels.gpu.norm import dual_layer_norm

EPSILON = 1e-5
ROWS, FEW_ROWS = 16_384, 64
WIDTHS = (512, 1024, 2048, 2560, 5120)
CHECKED = 64
"""So many rows are compared with float64."""
MLP_TARGET, OUT_TARGET = 1.1, 1.03
FASTER = 1.02
"""cuBLAS counts as the faster one from this ratio on: less is noise."""


@dataclass(frozen=True, slots=True)
class Form:
    """So many rows of a model's width."""

    rows: int
    width: int
    kind: torch.dtype

    def __str__(self) -> str:
        return f"N = {self.rows}, D = {self.width}, {name_of(self.kind)}"


FORMS = (
    *(Form(ROWS, width, torch.float16) for width in WIDTHS),
    *(Form(FEW_ROWS, width, torch.float16) for width in (512, 2048)),
    *(Form(ROWS, width, torch.bfloat16) for width in (1024, 2048, 5120)),
)
"""The last ones are the first to be left out."""
TINY = (Form(96, 64, torch.float16), Form(3, 64, torch.float16))


class Block:
    """Weights and activations of the parallel MLP in one form, random, biases and norms too."""

    def __init__(self, bench: Bench, form: Form) -> None:
        N, D, kind = form.rows, form.width, form.kind

        def made(*shape: int, scale: float = 1.0, centre: float = 0.0) -> torch.Tensor:
            return (bench.random(*shape, dtype=torch.float32, scale=scale) + centre).to(kind)

        self.x_ND = made(N, D)
        self.norms = tuple((made(D, scale=0.1, centre=1.0), made(D, scale=0.1)) for _ in range(2))
        self.w_in_FD, self.b_in_F = made(4 * D, D, scale=D**-0.5), made(4 * D, scale=0.1)
        self.w_out_DE, self.b_out_D = made(D, 5 * D, scale=(5 * D) ** -0.5), made(D, scale=0.1)
        self.w_o_DD, self.w_2_DF = (w.contiguous() for w in self.w_out_DE.split((D, 4 * D), dim=1))
        self.normed_ND = tuple(bench.poisoned(N, D, dtype=kind) for _ in range(2))
        self.branches_NE = made(N, 5 * D)
        """[attention | gelu], what the output product reads."""
        self.out_ND = bench.poisoned(N, D, dtype=kind)


def run(bench: Bench) -> None:
    """Each part and the whole; where cuBLAS with a small kernel wins, a row for the table."""
    forms = TINY if bench.rehearsal else FORMS
    won: list[str] = []
    for form in bench.within_time(forms):
        with torch.inference_mode():
            block = Block(bench, form)
            for part in (norm, mlp_in, out, whole):
                with bench.attempt(f"{part.__name__}, {form}"):
                    part(bench, form, block)
            with bench.attempt(f"products, {form}"):
                won += products(bench, form, block)
    print("\nFor linear.PREFER_CUBLAS, where cuBLAS with a small kernel is faster:")
    print("\n".join(sorted(set(won))) or "nothing")


def norm(bench: Bench, form: Form, block: Block) -> None:
    """Two LayerNorms of one x: bound by memory."""
    D, (first, second) = form.width, block.normed_ND

    def ours() -> torch.Tensor:
        dual_layer_norm(block.x_ND, *block.norms, EPSILON, first, second)
        return torch.cat((first[:CHECKED], second[:CHECKED]), 1)

    def run_ours() -> None:
        dual_layer_norm(block.x_ND, *block.norms, EPSILON, first, second)

    def peer() -> tuple[torch.Tensor, ...]:
        return tuple(layer_norm(block.x_ND, (D,), *norm, EPSILON) for norm in block.norms)

    exact = torch.cat(
        [
            reference.layer_norm(
                block.x_ND[:CHECKED].double(), *(w.double() for w in pair), EPSILON
            )
            for pair in block.norms
        ],
        dim=1,
    )
    name = "two layer_norm"
    answers = {name: lambda: torch.cat([h[:CHECKED] for h in peer()], 1)}
    errors = bench.answers(ours, answers, exact, lambda x: x)
    work = Work(0.0, 3 * block.x_ND.nbytes, name_of(form.kind))
    bench.race(f"norm, {form}", run_ours, {name: peer}, work=work, numbers=errors)


def mlp_in(bench: Bench, form: Form, block: Block) -> None:
    """The first product with bias and GELU, into the columns that the second product reads."""
    h_ND, out_NF = block.x_ND, block.branches_NE[:, form.width :]
    exact = reference.gelu(h_ND[:CHECKED].double() @ block.w_in_FD.double().T + block.b_in_F)

    def ours() -> torch.Tensor:
        ours_linear.linear(h_ND, block.w_in_FD, block.b_in_F, out_NF, gelu="none")
        return out_NF

    peers = {
        "cuBLAS + bias, GELU": lambda: gelu(linear(h_ND, block.w_in_FD, block.b_in_F)),
        "cuBLAS, bias + GELU compiled": compiled_gelu(bench, h_ND, block),
    }
    errors = bench.answers(ours, peers, exact, lambda x: x[:CHECKED])
    work = _product(form, 4 * form.width, form.width)
    bench.race(f"mlp-in, {form}", ours, peers, work=work, numbers=errors)


def out(bench: Bench, form: Form, block: Block) -> None:
    """The sum x + [attention | gelu] [W_o | W_2]ᵀ + biases, in one product."""
    a_NE, x_ND = block.branches_NE, block.x_ND
    exact = (
        x_ND[:CHECKED].double()
        + a_NE[:CHECKED].double() @ block.w_out_DE.double().T
        + block.b_out_D.double()
    )
    attention_ND, gelu_NF = (
        part.contiguous() for part in a_NE.split((form.width, 4 * form.width), 1)
    )

    def ours() -> torch.Tensor:
        ours_linear.linear(a_NE, block.w_out_DE, block.b_out_D, block.out_ND, residual_NO=x_ND)
        return block.out_ND

    def two_products() -> torch.Tensor:
        y_ND = torch.addmm(x_ND, attention_ND, block.w_o_DD.T)
        return torch.addmm(y_ND, gelu_NF, block.w_2_DF.T).add_(block.b_out_D)

    def two_linears() -> torch.Tensor:
        attended_ND = linear(attention_ND, block.w_o_DD, block.b_out_D)
        return attended_ND.add_(linear(gelu_NF, block.w_2_DF)).add_(x_ND)

    peers = {"two products that add, bias": two_products, "two products and adds": two_linears}
    errors = bench.answers(ours, peers, exact, lambda x: x[:CHECKED])
    best_target = OUT_TARGET if form.rows >= ROWS else None
    work = _product(form, form.width, 5 * form.width)
    bench.race(f"out, {form}", ours, peers, work=work, best_target=best_target, numbers=errors)


def whole(bench: Bench, form: Form, block: Block) -> None:
    """The sum x + [attention | gelu(W_1 ln2(x) + b)] [W_o | W_2]ᵀ + biases, LayerNorms included."""
    D, x_ND, (first, second) = form.width, block.x_ND, block.normed_ND
    buffer_NE = block.branches_NE

    def ours() -> torch.Tensor:
        dual_layer_norm(x_ND, *block.norms, EPSILON, first, second)
        ours_linear.linear(second, block.w_in_FD, block.b_in_F, buffer_NE[:, D:], gelu="none")
        ours_linear.linear(buffer_NE, block.w_out_DE, block.b_out_D, block.out_ND, residual_NO=x_ND)
        return block.out_ND

    attention_ND = buffer_NE[:, :D].contiguous()

    def peer(activate: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        layer_norm(x_ND, (D,), *block.norms[0], EPSILON)  # what attention would read
        h_ND = layer_norm(x_ND, (D,), *block.norms[1], EPSILON)
        hidden_NF = activate(h_ND)
        y_ND = torch.addmm(x_ND, attention_ND, block.w_o_DD.T)
        return torch.addmm(y_ND, hidden_NF, block.w_2_DF.T).add_(block.b_out_D)

    def plain(h_ND: torch.Tensor) -> torch.Tensor:
        return gelu(linear(h_ND, block.w_in_FD, block.b_in_F))

    peers = {"cuBLAS + bias, GELU, products that add": lambda: peer(plain)}
    if not bench.rehearsal:
        fused = torch.compile(bias_gelu, dynamic=False)
        peers["the same, bias + GELU compiled"] = lambda: peer(
            lambda h_ND: fused(torch.mm(h_ND, block.w_in_FD.T), block.b_in_F)
        )
    rows_D = x_ND[:CHECKED].double()
    h = reference.layer_norm(rows_D, *(w.double() for w in block.norms[1]), EPSILON)
    hidden = reference.gelu(h @ block.w_in_FD.double().T + block.b_in_F.double())
    both = torch.cat((attention_ND[:CHECKED].double(), hidden), dim=1)
    exact = rows_D + both @ block.w_out_DE.double().T + block.b_out_D.double()
    errors = bench.answers(ours, peers, exact, lambda x: x[:CHECKED])
    flops = 2.0 * form.rows * D * (4 * D + 5 * D)
    bench.race(
        f"parallel MLP, {form}",
        ours,
        peers,
        work=Work(flops, dtype=name_of(form.kind)),
        best_target=MLP_TARGET if form.rows >= ROWS else None,
        numbers=errors,
    )


def products(bench: Bench, form: Form, block: Block) -> list[str]:
    """Each product by our kernel and by `linear_by_cublas`; rows of the table where that wins.

    `deterministic` asks for our kernel whatever the table says.
    """
    D, x_ND, a_NE = form.width, block.x_ND, block.branches_NE
    by_kernel = partial(ours_linear.linear, deterministic=True)
    shapes: dict[str | None, tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]] = {
        None: (x_ND, block.w_in_FD[: 3 * D], block.b_in_F[: 3 * D], {}),
        "none": (x_ND, block.w_in_FD, block.b_in_F, {"gelu": "none"}),
        "residual": (a_NE, block.w_out_DE, block.b_out_D, {"residual_NO": x_ND}),
    }
    won = []
    for epilogue, (a, w, b, rest) in shapes.items():
        exact = a[:CHECKED].double() @ w.double().T + b.double()
        exact = reference.gelu(exact) if epilogue == "none" else exact
        exact = exact + x_ND[:CHECKED].double() if epilogue == "residual" else exact
        (outputs, inputs), name = w.shape, "cuBLAS and a small kernel"

        def answer(
            function: Callable[..., None],
            given: tuple[Any, ...] = (a, w, b),
            out_NO: torch.Tensor | None = None,
            rest: dict[str, Any] = rest,
        ) -> torch.Tensor:
            assert out_NO is not None
            function(*given, out_NO, **rest)
            return out_NO

        ours, peer = (
            partial(answer, function, out_NO=bench.poisoned(form.rows, outputs, dtype=form.kind))
            for function in (by_kernel, ours_linear.linear_by_cublas)
        )
        errors = bench.answers(ours, {name: peer}, exact, lambda x: x[:CHECKED])
        (ratio,) = bench.race(
            f"product, epilogue {epilogue}, O = {outputs}, I = {inputs}, {form}",
            ours,
            {name: peer},
            work=_product(form, outputs, inputs),
            numbers=errors,
        ).values()
        if ratio < 1 / FASTER and form.rows == ROWS:
            capability = torch.cuda.get_device_capability(bench.device)
            won.append(f"    ({capability}, {outputs}, {inputs}, {epilogue!r}),  # {ratio:.2f}")
    return won


def compiled_gelu(bench: Bench, h_ND: torch.Tensor, block: Block) -> Callable[[], torch.Tensor]:
    """cuBLAS, and one kernel for bias and GELU behind it, by torch.compile."""
    fused = bias_gelu if bench.rehearsal else torch.compile(bias_gelu, dynamic=False)
    return lambda: fused(torch.mm(h_ND, block.w_in_FD.T), block.b_in_F)


def bias_gelu(y_NF: torch.Tensor, b_F: torch.Tensor) -> torch.Tensor:
    """In float32 between reading and writing, as inductor does it."""
    return gelu(y_NF.float() + b_F.float()).to(y_NF.dtype)


def _product(form: Form, outputs: int, inputs: int) -> Work:
    read = form.rows * inputs + outputs * inputs + form.rows * outputs
    return Work(2.0 * form.rows * outputs * inputs, 2.0 * read, name_of(form.kind))
