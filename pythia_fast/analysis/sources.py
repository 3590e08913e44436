"""What the case studies on sequences ask of runs: which columns, which steps, what was seen when.

A model's training is told by its labels: checkpoint stepN has seen the rows [0, batch·N) of its
data in training order, batch being 1024 in the whole suite; also where the first release took 4M
tokens at a time, since its labels count as if they had been 2M.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pythia_fast.errors import ArgumentError, UnknownModelError
from pythia_fast.quantities import integer
from pythia_fast.runs import SweepResult, SweepResults
from pythia_fast.runs.results.columns import Columns
from pythia_fast.suite import SEQUENCES_PER_STEP, ModelSpec, Steps, parse_steps, spec
from pythia_fast.words import listed, nearest

_NAMED = 8  # incomplete steps in a summary
HOW = {
    "memorized": "sweep it with metrics=['memorization'], or --metrics memorization",
    "score": "sweep it with metrics=['memorization-score'], or --metrics memorization-score",
    "nll": "sweep it with metrics=['perplexity'], or --metrics perplexity",
}
"""Which metric brings a column."""


@dataclass(frozen=True, slots=True)
class Source:
    """One run as a study reads it.

    `steps` are those that are wanted and there, ascending, `batch` how many rows of its data a
    training step saw, or None where that is not known, and `gaps` the steps that are not complete,
    where all are wanted.
    """

    result: SweepResult
    columns: Columns
    steps: tuple[int, ...]
    batch: int | None
    gaps: tuple[int, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.result.specification.get("model", self.result.path.name))

    @property
    def words(self) -> str:
        """The run, for an error."""
        return run_words(self.result)


def run_words(result: SweepResult) -> str:
    """A run as errors call it, of which several may have been given."""
    return f"the run of {result.model} in {result.path}"


def several(results: object, *, least: int = 1) -> list[SweepResult]:
    """One result or several as a list. ArgumentError for anything else, or for fewer."""
    given = [results] if isinstance(results, SweepResult) else results
    if isinstance(given, SweepResults):
        given = given.values()
    if not isinstance(given, Iterable):
        raise ArgumentError(f"a study is made of SweepResults, not of {results!r}")
    found = list(given)
    for each in found:
        if not isinstance(each, SweepResult):
            raise ArgumentError(f"a study is made of SweepResults, not of {each!r}")
    if len(found) < least:
        raise ArgumentError("no run given: a study needs at least one SweepResult")
    return found


def source(
    result: SweepResult,
    needed: Sequence[str],
    wanted: Sequence[str] = (),
    *,
    steps: Steps = "all",
    batch: int | None = None,
) -> Source:
    """A run whose sequences have the columns `needed`, and those of `wanted` that there are.

    A run in which nothing is complete has no steps. ArgumentError where something is, but not what
    is needed; UnknownStepError for steps that are not complete.
    """
    columns = result.columns((*needed, *wanted))
    missing = [name for name in needed if name not in columns.names]
    if missing and (columns.names or len(result.columns(("sequence",)).steps)):
        raise ArgumentError(
            f"{result.path} has no column {missing[0]!r}: {HOW.get(missing[0], 'sweep it anew')}"
        )
    whose = run_words(result)
    chosen = parse_steps(steps, columns.steps, series=whose) if columns.steps else ()
    missing_steps: set[int] = set()
    if isinstance(steps, str) and steps == "all":
        missing_steps = {gap.step for gap in result.gaps} - set(columns.steps)
    batch = _batch(result, columns, batch)
    return Source(result, columns, chosen, batch, tuple(sorted(missing_steps)))


def given_twice(of: Source, others: Iterable[Source], step: int | None = None) -> ArgumentError:
    """The error for `of`, where another run is of the same model, and has the same step."""
    others = (each for each in others if each is not of and each.model == of.model)
    other = next(each for each in others if step is None or step in each.steps)
    what = "are" if step is None else f"have step {step}"
    return ArgumentError(
        f"two runs {what} of {of.model}, {other.result.path} and {of.result.path}: give one of them"
    )


def incomplete(sources: Iterable[Source]) -> dict[str, str]:
    """For a summary: the steps that were asked for and are not complete, if there are any."""
    told = [
        f"{of.model} at step{'s' * (len(of.gaps) > 1)} {listed(of.gaps, _NAMED)}"
        for of in sources
        if of.gaps
    ]
    return {"incomplete": "; ".join(told)} if told else {}


def known(result: SweepResult) -> ModelSpec | None:
    """What the suite says of the model of a run; None for a folder of checkpoints."""
    try:
        return spec(str(result.specification.get("model")))
    except UnknownModelError:
        return None


def positive(value: int, name: str) -> int:
    """`value` if it is an int of at least 1. ArgumentError, with its name, if not."""
    if integer(value, name) < 1:
        raise ArgumentError(f"{name} is at least 1, got {value}")
    return int(value)


def chosen_of(names: Iterable[str], available: Sequence[str], what: str) -> tuple[str, ...]:
    """`names` if all are available. ArgumentError that lists the near ones if not."""
    given = (names,) if isinstance(names, str) else tuple(names)
    for name in given:
        if name not in available:
            raise ArgumentError(f"there is {nearest(what, name, available)}")
    return given


def _batch(result: SweepResult, columns: Columns, batch: int | None) -> int | None:
    if batch is not None:
        return positive(batch, "batch")
    of_suite = known(result)
    origins: list[dict[str, Any]] = list(columns.origins.values())
    if of_suite is None or not origins or any(origin["commit"] is None for origin in origins):
        return None  # a folder may be called like a model of the suite
    return SEQUENCES_PER_STEP if of_suite.suite_order and of_suite.batch_tokens else None
