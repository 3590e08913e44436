"""What is to be done at each step, as far as `todo` has to know; `SweepJob` is that of a sweep."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pythia_fast.errors import FormatError, RunMismatchError
from pythia_fast.quantities import counted
from pythia_fast.runs.folder.run_folder import Parts
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.runs.progress import Reporter
from pythia_fast.runs.work import Data, sweep_flops


class DamagedTwinError(Exception):
    """The results that a step was to take from another cannot be read."""

    def __init__(self, reason: FormatError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Job(Protocol):
    """The same work at each of its steps, with results in a run folder."""

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that are asked for."""

    @property
    def sharing(self) -> bool:
        """Whether a step's results are also those of another with the same weights."""

    def tokens(self, step: int) -> int:
        """How many tokens are looked at in a step."""

    def origins(self, step: int) -> list[dict[str, Any]] | None:
        """Where a step's results are from; None if they are not all there. FormatError."""

    def first_origin(self) -> dict[str, Any] | None:
        """Where some result in the folder is from, the same one each time; None without any."""

    def place(self, step: int) -> Path:
        """Where a step's results lie."""

    def amount(self, steps: Iterable[int]) -> str:
        """How much there is to compute at these steps, in words."""


class SweepJob:
    """The units of a plan, as parts in a run folder."""

    def __init__(self, plan: Plan, folder: Parts, progress: Reporter) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._counted: set[str] = set()

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that are asked for."""
        return self._plan.steps

    @property
    def sharing(self) -> bool:
        """Not where every step looks at rows of its own ("seen", "unseen")."""
        return not isinstance(self._plan.sequences, str)

    def tokens(self, step: int) -> int:
        """How many tokens are looked at in a step."""
        return sum(map(self._plan.tokens_of, self._plan.units(step)))

    def origins(self, step: int) -> list[dict[str, Any]] | None:
        """Where a step's results are from; None if they are not all there, and can be read."""
        found = []
        for unit in self._plan.units(step):
            origin = self._folder.intact(unit)
            if origin is None:
                return None
            found.append(dict(origin))
        return found

    def first_origin(self) -> dict[str, Any] | None:
        """Where the first results that can be read are from; None without any."""
        return self._folder.first_origin()

    def place(self, step: int) -> Path:
        """Where a step's results lie."""
        return self._folder.path / "parts" / f"step={step}"

    def amount(self, steps: Iterable[int]) -> str:
        """How much there is to compute at these steps, in words."""
        wanted = tuple(steps)
        flops = sweep_flops(
            self._plan.spec,
            wanted,
            self._plan.metrics,
            Data(self._plan.dataset),
            self._plan.sequences,
        )
        operations = f"{flops:.3g} floating-point operations"
        return f"{sequences_words(self._plan, wanted)}, {operations}" if wanted else operations

    def has(self, unit: Unit, sha256: str | None) -> bool:
        """Whether a unit's result is there; RunMismatchError if it is of other weights."""
        origin = self._folder.intact(unit)
        if origin is None:
            return False
        check_unchanged(self._folder, unit.step, origin["weights_sha256"], sha256)
        if unit.path not in self._counted:
            self._counted.add(unit.path)
            self._progress.skip(self._plan.tokens_of(unit), unit.step)
        return True


def sequences_words(plan: Plan, steps: Sequence[int]) -> str:
    """How many sequences are looked at in each of these steps, and how long they are."""
    there = len(plan.dataset)
    chosen = [plan.chosen(step) for step in steps]
    longest = max(chosen, key=len)  # it holds the others
    least, most = min(map(len, chosen)), len(longest)
    many = counted(most, "sequence") if least == most else f"{least:,} to {most:,} sequences"
    if not most:
        return many
    lengths = plan.dataset.lengths_of(np.arange(longest.start, longest.stop, longest.step))
    short, long = int(lengths.min()), int(lengths.max())
    words = f"{many} of {short if short == long else f'{short} to {long}'} tokens"
    cut = isinstance(plan.sequences, int) and plan.sequences > there
    return f"{words} (all there are: fewer than {plan.sequences:,})" if cut else words


def check_unchanged(folder: Parts, step: int, then: str, now: str | None) -> None:
    """RunMismatchError if a step has other weights than its results are of."""
    if then != now:
        raise RunMismatchError(
            f"the weights of step {step} have changed since their results in "
            f"{folder.path} were computed. Give another `out` (--out), or resume=False"
        )
