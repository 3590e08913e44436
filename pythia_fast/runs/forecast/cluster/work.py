"""What there is to do on a cluster: of each step its bytes and operations, known on paper."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Metric
from pythia_fast.runs.forecast.here import dataset_here, steps_to_load
from pythia_fast.runs.plan import Sequences, chosen_rows
from pythia_fast.runs.steps.survey import in_words, survey
from pythia_fast.runs.work import Data, sweep_flops, usual_positions
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import Architecture, ModelSpec, Steps, anomalies, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource
from pythia_fast.tokens.remote.pile import ROW_TOKENS

PARAMETER_BYTES = 2
"""Checkpoints on the Hub are in 16 bits."""
SHARD_BYTES = 10 * 10**9
"""The most that a file of theirs holds: 6.9b is in two files, 12b in three."""
ROW_BYTES = 2 * ROW_TOKENS


@dataclass(frozen=True, slots=True)
class StepWork:
    """A step that is to be loaded: its bytes over the network and from the disk, its operations.

    `file_bytes` is what its `files` take on the disk, which is more than what of a checkpoint on
    the Hub is downloaded, and read: causal masks are made.
    """

    step: int
    download_bytes: int
    load_bytes: int
    file_bytes: int
    files: int
    flops: int


@dataclass(frozen=True, slots=True)
class ClusterWork:
    """A model's steps that are to be loaded, of so many that were asked for; why others cannot be.

    `data_bytes` of the training data on the Hub are looked at by one of them, or all; `positions`
    is how many a sequence's pass usually has.
    """

    series: CheckpointSeries
    asked: int
    missing: Mapping[int, str]
    steps: tuple[StepWork, ...]
    data_bytes: int
    positions: int

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
    wanted = parse_steps(steps, series.steps, series=series.name)
    in_folder = series.spec.repo is None
    files, groups, missing = (_of_folder if in_folder else _on_paper)(series, wanted)
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
        of_step = files[step]
        coming = 0 if in_folder or step not in firsts else of_step.load_bytes
        found.append(
            StepWork(
                *(step, coming, of_step.load_bytes, of_step.nbytes, of_step.count, flops[step])
            )
        )
    rows = 0
    if data.dataset is None:
        looked_at = (chosen_rows(sequences, step.step, series.spec, data.rows) for step in found)
        rows = max(map(len, looked_at), default=0)
    positions = usual_positions(series.spec, wanted[-1], metrics, data, sequences)
    return ClusterWork(series, len(wanted), missing, tuple(found), rows * ROW_BYTES, positions)


@dataclass(frozen=True, slots=True)
class _Files:
    """A step's files: what they take, how many they are, and what of them is read."""

    nbytes: int
    count: int
    load_bytes: int


def files_on_paper(architecture: Architecture) -> tuple[int, int]:
    """What the files of a checkpoint on the Hub take on a disk, and how many they are.

    Two bytes a parameter, and in each layer a causal mask of a byte for each pair of positions.
    """
    masks = architecture.layers * architecture.max_positions**2
    nbytes = PARAMETER_BYTES * architecture.parameters + masks
    return nbytes, -(-nbytes // SHARD_BYTES)


_OfSteps = tuple[dict[int, _Files], list[tuple[int, ...]], dict[int, str]]


def _on_paper(series: CheckpointSeries, wanted: Sequence[int]) -> _OfSteps:
    """The files of the steps that are there, these in groups of the same weights, and the others.

    Of those why they cannot be had.
    """
    spec = series.spec
    known = anomalies(spec)
    reason_of = {
        step: in_words(each)
        for each in known
        if each.kind == "missing" and not each.mended
        for step in each.steps
    }
    missing = {step: reason_of[step] for step in wanted if step in reason_of}
    there = [step for step in wanted if step not in missing]
    first_of = {
        step: each.steps[0] for each in known if each.kind == "identical" for step in each.steps
    }
    groups: dict[int, list[int]] = {}
    for step in there:
        groups.setdefault(first_of.get(step, step), []).append(step)
    files = _Files(*files_on_paper(spec.architecture), PARAMETER_BYTES * spec.parameters)
    return dict.fromkeys(there, files), [tuple(group) for group in groups.values()], missing


def _of_folder(series: CheckpointSeries, wanted: Sequence[int]) -> _OfSteps:
    """The same of a folder, whose files are opened; of whose weights nothing is known."""
    found = survey(series, wanted)
    files = {
        step: _Files(revision.nbytes, len(revision.files), revision.nbytes)
        for step, revision in found.revisions.items()
        if revision.error is None
    }
    missing = {step: str(error) for step, error in found.missing.items()}
    return files, found.same_weights(files), missing
