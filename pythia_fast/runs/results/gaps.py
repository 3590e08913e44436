"""What a run folder lacks: the steps that were asked for and are not complete."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.runs.folder.parts import Failure, numbered, read_asked
from pythia_fast.words import listed


@dataclass(frozen=True, slots=True)
class Gap:
    """A step of which a metric has no result, and why.

    It failed, is damaged (then the file is named), unfinished or not begun.
    """

    step: int
    metric: str
    reason: str

    @property
    def state(self) -> str:
        """The reason in a word: "failed", "damaged", "unfinished" or "not begun"."""
        return self.reason.partition(":")[0]


def known_steps(path: Path, failures: Iterable[Failure]) -> set[int]:
    """All steps that a run folder knows of: asked for, pinned, begun or failed."""
    begun = {step for step, _ in numbered(path / "parts")}
    pinned = {
        int(file.stem.removeprefix("step="))
        for file in (path / "commits").glob("step=*.json")
        if file.stem.removeprefix("step=").isdecimal()
    }
    return begun | pinned | read_asked(path) | {failure.step for failure in failures}


def find_gaps(
    steps: Iterable[int],
    metrics: Iterable[str],
    shards: Mapping[tuple[int, str], tuple[int, int]],
    failures: Iterable[Failure],
    damaged: Mapping[tuple[int, str], Sequence[Exception]],
) -> tuple[Gap, ...]:
    """The gaps of `steps` × `metrics`: where not all of how many `shards` there are can be read."""
    failed = {failure.step: f"{failure.error}: {failure.message}" for failure in failures}
    names = tuple(metrics)
    found = []
    for step in sorted(set(steps)):
        for name in names:
            here, of = shards.get((step, name), (0, None))
            if here == of:
                continue
            if (step, name) in damaged:
                reason = f"damaged: {listed(damaged[step, name], 1, between='; ')}"
            elif step in failed:
                reason = f"failed: {failed[step]}"
            elif here:
                reason = f"unfinished: {here} of {of} shards are there"
            else:
                reason = "not begun"
            found.append(Gap(step, name, reason))
    return tuple(found)
