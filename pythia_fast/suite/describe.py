"""A model in lines of text, for `pythia-fast models 12b`."""

from collections.abc import Iterator
from textwrap import wrap

from pythia_fast.suite.anomalies import Anomaly, anomalies
from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.models import OPTIMIZER
from pythia_fast.suite.steps import STEPS, STEPS_V0

_LABEL = 16  # columns of the left side
_WIDTH = 100


def card(spec: ModelSpec) -> str:
    """All that is known of one model, without what is not known; no line over 100 columns."""
    lines = [spec.repo or spec.name]
    for label, text in facts(spec):
        wrapped = wrap(text, _WIDTH - _LABEL - 2, break_on_hyphens=False)
        lines += [f"  {label if i == 0 else '':<{_LABEL}}{line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)


def table(specs: tuple[ModelSpec, ...]) -> str:
    """One line a model: name, parameters, shape, steps, corpus."""
    columns = max(len("model"), *(len(spec.name) for spec in specs))
    lines = [f"{'model':<{columns}}  {'parameters':>14}  layers  width  heads  steps  corpus"]
    for spec in specs:
        shape = spec.architecture
        lines.append(
            f"{spec.name:<{columns}}  {spec.parameters:>14,}  {shape.layers:>6}  {shape.width:>5}  "
            f"{shape.heads:>5}  {len(spec.steps):>5}  {spec.corpus or ''}".rstrip()
        )
    return "\n".join(lines)


def facts(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """What is known of a model, by name; a fact that goes on has no name."""
    shape = spec.architecture
    yield "name", spec.name
    if spec.old_names:
        yield "old names", ", ".join(spec.old_names)
    yield (
        "parameters",
        f"{spec.parameters:,}; {spec.non_embedding_parameters:,} without the embeddings",
    )
    yield (
        "shape",
        f"{shape.layers} layers, width {shape.width}, {shape.heads} heads of {shape.head_dim} "
        f"({shape.rotary_dims} rotated), {shape.vocab_rows} vocabulary rows",
    )
    yield "checkpoints", _steps(spec.steps)
    if spec.data is not None:
        yield "data", f"{spec.data} ({spec.corpus})"
    if spec.base is not None:
        yield "trained on from", f"{spec.base} at step {spec.branch_step}"
    if spec.seed is not None:
        varies = f", which sets the {spec.seed_varies}" if spec.seed_varies else ""
        yield "seed", f"{spec.seed}{varies}"
    if spec.batch_tokens is not None and spec.learning_rate is not None:
        real_steps = spec.real_step(spec.steps[-1])
        yield (
            "training",
            f"{real_steps:,} steps of {spec.batch_tokens:,} tokens in {spec.precision}",
        )
        yield "learning rate", f"{spec.learning_rate:g}, falling to {spec.final_learning_rate:g}"
        yield "optimizer", OPTIMIZER
    if spec.equivalent:
        yield "same shape as", ", ".join(spec.equivalent)
    for index, change in enumerate(spec.changed):
        yield "since v0" if index == 0 else "", change
    for index, note in enumerate(spec.notes):
        yield "note" if index == 0 else "", note
    for index, anomaly in enumerate(anomalies(spec)):
        yield "beware" if index == 0 else "", _anomaly(anomaly)
    if spec.licence is not None:
        yield "licence", spec.licence


def _steps(steps: tuple[int, ...]) -> str:
    """The steps in a few words."""
    if steps == STEPS:
        return f"{len(steps)}: 0, 1, 2, 4, …, 512, then every 1000 up to 143000"
    if steps == STEPS_V0:
        return f"{len(steps)}: every 1000 up to 143000"
    if len(steps) <= 12:
        return f"{len(steps)}: {', '.join(map(str, steps))}"
    return f"{len(steps)} from {steps[0]} to {steps[-1]}"


def _anomaly(anomaly: Anomaly) -> str:
    """Which steps, what of them, and where to read on."""
    steps = anomaly.steps
    if len(steps) <= 3:
        which = f"{'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))}"
    else:
        which = f"{len(steps)} steps between {steps[0]} and {steps[-1]}"
    mended = " (mended since)" if anomaly.mended else ""
    return f"{which}: {anomaly.meaning}{mended}. {anomaly.url}"
