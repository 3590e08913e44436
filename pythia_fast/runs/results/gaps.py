"""What a run folder lacks: the steps that were asked for and are not complete."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.runs.folder.parts import Failure, numbered, read_asked


@dataclass(frozen=True, slots=True)
class Gap:
    """A step of which a metric has no result, and why: it failed, is unfinished or not begun."""

    step: int
    metric: str
    reason: str

    @property
    def state(self) -> str:
        """The reason in a word: "failed", "unfinished" or "not begun"."""
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
    complete: Collection[tuple[int, str]],
    parts: Mapping[tuple[int, str], tuple[int, int]],
    failures: Iterable[Failure],
) -> tuple[Gap, ...]:
    """The gaps of `steps` × `metrics`; `parts` are how many of a result's shards are there."""
    failed = {failure.step: f"{failure.error}: {failure.message}" for failure in failures}
    names = tuple(metrics)
    found = []
    for step in sorted(set(steps)):
        for name in names:
            if (step, name) in complete:
                continue
            here, of = parts.get((step, name), (0, 0))
            if step in failed:
                reason = f"failed: {failed[step]}"
            elif here:
                reason = f"unfinished: {here} of {of} shards are there"
            else:
                reason = "not begun"
            found.append(Gap(step, name, reason))
    return tuple(found)
