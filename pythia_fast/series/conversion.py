"""What becomes of the steps of a conversion: written, there already, or failed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pythia_fast.errors import (
    ArgumentError,
    ConversionError,
    Failure,
    OnError,
    WorkInterruptedError,
)
from pythia_fast.quantities import counted
from pythia_fast.words import listed

_WAY_ON = "on_error='skip' (--on-error skip) leaves such steps out"
_STEPS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a call of `convert` has done: the `steps` that are in `out`, those `written` by it.

    `failures` are the steps that were left out, each with the reason.
    """

    out: Path
    steps: tuple[int, ...]
    written: tuple[int, ...]
    written_bytes: int
    failures: tuple[Failure, ...] = ()


@dataclass(slots=True)
class Outcome:
    """The steps that were asked for, while they are written."""

    out: Path
    wanted: Sequence[int]
    on_error: OnError
    progress: Callable[[int, int], None] | None
    there: int = 0
    written: list[int] = field(default_factory=list)
    written_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error is 'raise' or 'skip', not {self.on_error!r}")

    def tell(self) -> None:
        """Tell how many are done."""
        if self.progress is not None:
            self.progress(self.there, len(self.wanted))

    def missing(self, errors: Mapping[int, Exception]) -> None:
        """Steps that cannot be had. ConversionError for all of them, unless they are skipped."""
        if self.on_error == "raise" and errors:
            first = next(iter(errors.values()))
            raise ConversionError(
                f"{counted(len(errors), 'step')} cannot be had ({listed(errors, _STEPS_NAMED)}): "
                f"{first}. Nothing was written; {_WAY_ON}"
            ) from first
        self.failures += [Failure.of(step, error) for step, error in errors.items()]

    def fail(self, step: int, error: Exception) -> None:
        """A step failed. ConversionError, unless it is skipped."""
        if self.on_error == "raise":
            raise ConversionError(
                f"step {step} failed: {error}. {self._kept()} and kept; once it is mended the same "
                f"call goes on, and {_WAY_ON}"
            ) from error
        self.failures.append(Failure.of(step, error))

    def done(self, step: int, nbytes: int) -> None:
        """A step is there; nothing was written if somebody else was faster."""
        self.there += 1
        if nbytes:
            self.written.append(step)
            self.written_bytes += nbytes

    def interrupted(self) -> WorkInterruptedError:
        """The error of a Ctrl-C."""
        return WorkInterruptedError(
            f"interrupted; at least {self.there} of {len(self.wanted)} steps are in "
            f"{self.out}, and the same call goes on with the others"
        )

    def result(self) -> Conversion:
        """What was done."""
        failed = {failure.step for failure in self.failures}
        return Conversion(
            self.out,
            tuple(step for step in self.wanted if step not in failed),
            tuple(self.written),
            self.written_bytes,
            tuple(sorted(self.failures, key=lambda failure: failure.step)),
        )

    def _kept(self) -> str:
        verb = "is" if self.there == 1 else "are"
        return f"{self.there} of {len(self.wanted)} steps {verb} in {self.out}"
