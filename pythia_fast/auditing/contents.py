"""What the tensors themselves say of a series: read once, step by step, with bounded memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from pythia_fast.auditing.continuity import Distances, continuity_findings
from pythia_fast.auditing.findings import Finding, FindingKind, named, steps_named
from pythia_fast.auditing.reading import Tensor, read_checkpoint
from pythia_fast.errors import (
    ChecksumError,
    FormatError,
    MissingCheckpointError,
    PythiaFastError,
    ReadError,
    WeightsError,
)
from pythia_fast.progress import Bar
from pythia_fast.series import CheckpointSeries
from pythia_fast.series.arriving import Arriving


@dataclass(slots=True)
class Contents:
    """What is kept of the checkpoints that were read."""

    distances: Distances = field(default_factory=Distances)
    findings: list[Finding] = field(default_factory=list)
    """Those of single steps."""
    sha256: dict[int, dict[str, str]] = field(default_factory=dict)
    """Step -> tensor -> the hash of its bytes; without tensors that are constant."""
    dtypes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    unreadable: set[int] = field(default_factory=set)
    """Steps that could not be opened; each is a finding too."""

    def add(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Take in the next checkpoint."""
        self.distances.add(step, tensors)
        self.findings += _not_finite(step, tensors)
        self.sha256[step] = {
            name: tensor.sha256 for name, tensor in tensors.items() if not tensor.constant
        }
        self.dtypes[step] = tuple(sorted({tensor.dtype for tensor in tensors.values()}))


def read_contents(
    series: CheckpointSeries,
    steps: Sequence[int],
    *,
    threads: int,
    bar: Bar,
) -> Contents:
    """Read the steps one after the other, each fetched while the one before is read; `bar` counts.

    What is wrong with a step is a finding. HubError, WriteError or ArgumentError where the Hub, the
    disk or its budget stands in the way: then nothing is known.
    """
    contents = Contents()
    with (
        ThreadPoolExecutor(threads, "pythia_fast-audit") as pool,
        series.ahead(steps) as ahead,
        bar.telling(Arriving(ahead)),
    ):
        for step in steps:
            try:
                with closing(series.open(step)) as checkpoint:
                    contents.add(step, read_checkpoint(checkpoint, pool))
            except (
                *(MissingCheckpointError, FormatError, WeightsError, ChecksumError, ReadError),
            ) as error:
                contents.unreadable.add(step)
                contents.findings.append(_unreadable(step, error))
            bar.advance()
    return contents


def content_findings(
    contents: Contents, known_same: Sequence[tuple[int, ...]]
) -> Iterator[Finding]:
    """All of it; steps in `known_same` were found to have the same weights by their files."""
    yield from contents.findings
    yield from _dtypes(contents.dtypes)
    yield from _shared_tensors(contents.sha256, known_same)
    yield from continuity_findings(contents.distances)


def _unreadable(step: int, error: PythiaFastError) -> Finding:
    kind: FindingKind = "missing" if isinstance(error, MissingCheckpointError) else "unreadable"
    return Finding(
        severity="error",
        kind=kind,
        steps=(step,),
        meaning=f"step {step} cannot be opened: {error}",
        advice="leave the step out, or tell the owners; nothing stands in for it",
    )


def _not_finite(step: int, tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    wrong = {name: tensor for name, tensor in tensors.items() if tensor.nan or tensor.infinite}
    if not wrong:
        return
    nan = sum(tensor.nan for tensor in wrong.values())
    infinite = sum(tensor.infinite for tensor in wrong.values())
    yield Finding(
        severity="error",
        kind="not finite",
        steps=(step,),
        tensors=tuple(wrong),
        count=nan + infinite,
        meaning=f"step {step}: {nan:,} NaN and {infinite:,} infinite weights, in "
        f"{named(list(wrong))}",
        advice="its losses will be NaN; a sweep keeps them, marked non-finite",
    )


def _dtypes(dtypes: Mapping[int, tuple[str, ...]]) -> Iterator[Finding]:
    if not dtypes:
        return
    usual, _ = Counter(dtypes.values()).most_common(1)[0]
    for kinds in dict.fromkeys(dtypes.values()):
        if kinds != usual:
            steps = tuple(step for step, each in dtypes.items() if each == kinds)
            yield Finding(
                severity="warning",
                kind="other dtype",
                steps=steps,
                meaning=f"{steps_named(steps)}: weights in {named(kinds)}, where most steps have "
                f"{named(usual)}",
                advice="mind the rounding when you compare these steps with others",
            )


def _shared_tensors(
    sha256: Mapping[int, Mapping[str, str]], known_same: Sequence[tuple[int, ...]]
) -> Iterator[Finding]:
    """Tensors with the same bytes in several steps.

    A constant one says nothing: a LayerNorm's scale is 1 until an update outgrows the rounding.
    """
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for step, digests in sha256.items():
        for name, digest in digests.items():
            holders[name, digest].append(step)
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for (name, _), steps in holders.items():
        if len(steps) > 1:
            groups[tuple(steps)].append(name)
    for together, names in groups.items():
        if any(set(together) <= set(same) for same in known_same):
            continue
        whole = all(len(names) == len(sha256[step]) for step in together)
        yield Finding(
            severity="error",
            kind="same weights" if whole else "shared tensor",
            steps=together,
            tensors=() if whole else tuple(names),
            meaning=f"{steps_named(together)} have "
            f"{'all weights' if whole else f'{len(names)} of {len(sha256[together[0]])} tensors'} "
            f"in common, byte for byte{'' if whole else f': {named(names)}'}",
            advice="use at most one of these steps"
            if whole
            else "do not use these steps: at least one is a mixture that was never trained",
        )
