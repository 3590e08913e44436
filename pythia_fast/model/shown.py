"""A model as a notebook shows it."""

from typing import TYPE_CHECKING

from pythia_fast.markup import html_facts
from pythia_fast.quantities import sized

if TYPE_CHECKING:
    from pythia_fast.model.model import Model


def model_html(model: "Model") -> str:
    """What it is, where its weights are from, and what it computes in."""
    a, checkpoint = model.architecture, model.checkpoint
    facts = (
        ("step", model.step),
        ("weights from", None if checkpoint is None else checkpoint.source),
        ("commit", None if checkpoint is None else checkpoint.commit),
        (
            "in memory",
            f"{str(model.dtype).removeprefix('torch.')} on {model.device}, "
            f"{sized(model.weights.flat.nbytes)}",
        ),
        ("computed in", None if model.native is None else model.native.arithmetic),
        ("computed by", None if model.gpu is None else "Triton kernels"),
        ("parameters", f"{a.parameters:,}"),
        (
            "shape",
            f"{a.layers} layers, width {a.width}, {a.heads} heads of {a.head_dim}, "
            f"{a.vocab_rows} vocabulary rows, {a.max_positions} positions",
        ),
    )
    return html_facts(facts, title=model.spec.name)
