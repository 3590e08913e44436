"""What there is to do on a cluster: of each step its bytes and operations, known on paper."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Metric
from pythia_fast.runs.forecast import dataset_here, opened, steps_to_load
from pythia_fast.runs.plan import Sequences
from pythia_fast.runs.survey import survey
from pythia_fast.runs.work import Data, sweep_flops
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import ModelSpec, Steps, anomalies, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource

PARAMETER_BYTES = 2
"""Checkpoints on the Hub are in 16 bits; their causal masks are made, not downloaded."""


@dataclass(frozen=True, slots=True)
class StepWork:
    """A step that is to be loaded: its bytes over the network and from the disk, its operations."""

    step: int
    download_bytes: int
    load_bytes: int
    flops: int


@dataclass(frozen=True, slots=True)
class ClusterWork:
    """A model's steps that are to be loaded, of so many that were asked for; the missing ones."""

    series: CheckpointSeries
    asked: int
    missing: tuple[int, ...]
    steps: tuple[StepWork, ...]

    @property
    def spec(self) -> ModelSpec:
        """What is known of the model."""
        return self.series.spec

    @property
    def source(self) -> str:
        """Where it is from: a repository, or a folder."""
        return self.spec.repo or self.series.source

    @property
    def download_bytes(self) -> int:
        """What is to come of all its steps."""
        return sum(step.download_bytes for step in self.steps)


def cluster_work(
    models: Sequence[str | Path],
    steps: Steps,
    *,
    tokens: TokenDataset | TokenSource | None,
    sequences: Sequences,
    metrics: Sequence[Metric],
    cache_dir: str | Path | None,
) -> tuple[ClusterWork, ...]:
    """The work of each model: those of the suite on paper, folders by looking into them.

    UnknownModelError, UnknownStepError; ArgumentError if there is no model, or one twice.
    """
    opened_series = [open_series(model, cache_dir=cache_dir) for model in models]
    counts = Counter(series.name for series in opened_series)
    twice = [name for name, count in counts.items() if count > 1]
    if twice or not counts:
        what = f"{', '.join(twice)} more than once" if twice else "none"
        raise ArgumentError(f"a sweep is of one or more different models; {what} was given")
    data = Data(dataset_here(tokens, cache_dir))
    return tuple(_work(series, steps, sequences, metrics, data) for series in opened_series)


def _work(
    series: CheckpointSeries,
    steps: Steps,
    sequences: Sequences,
    metrics: Sequence[Metric],
    data: Data,
) -> ClusterWork:
    wanted = parse_steps(steps, series.steps)
    in_folder = series.spec.repo is None
    sizes, groups = _of_folder(series, wanted) if in_folder else _on_paper(series.spec, wanted)
    firsts = {group[0] for group in groups}
    flops: dict[int, int] = {}
    if not isinstance(sequences, str):  # all steps look at the same rows
        flops = dict.fromkeys(
            wanted, sweep_flops(series.spec, wanted[:1], metrics, data, sequences)
        )
    found = []
    for step in sorted(steps_to_load(groups, sequences)):
        if step not in flops:
            flops[step] = sweep_flops(series.spec, [step], metrics, data, sequences)
        coming = 0 if in_folder or step not in firsts else sizes[step]
        found.append(StepWork(step, coming, sizes[step], flops[step]))
    missing = tuple(step for step in wanted if step not in sizes)
    return ClusterWork(series, len(wanted), missing, tuple(found))


def _on_paper(
    spec: ModelSpec, wanted: Sequence[int]
) -> tuple[dict[int, int], list[tuple[int, ...]]]:
    """The sizes of the steps that are there, and these in groups of the same weights."""
    known = anomalies(spec)
    missing = {
        step for each in known if each.kind == "missing" and not each.mended for step in each.steps
    }
    there = [step for step in wanted if step not in missing]
    first_of = {
        step: each.steps[0] for each in known if each.kind == "identical" for step in each.steps
    }
    groups: dict[int, list[int]] = {}
    for step in there:
        groups.setdefault(first_of.get(step, step), []).append(step)
    nbytes = PARAMETER_BYTES * spec.parameters
    return dict.fromkeys(there, nbytes), [tuple(group) for group in groups.values()]


def _of_folder(
    series: CheckpointSeries, wanted: Sequence[int]
) -> tuple[dict[int, int], list[tuple[int, ...]]]:
    """The same of a folder, whose files are opened; of whose weights nothing is known."""
    found = opened(series, survey(series, wanted))
    sizes = {
        step: revision.nbytes
        for step, revision in found.revisions.items()
        if revision.error is None
    }
    return sizes, found.same_weights(sizes)
