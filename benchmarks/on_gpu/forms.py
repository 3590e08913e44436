"""The sweeps of which the targets speak, one after another in a theme's time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from on_gpu.bench import Bench
from on_gpu.weights import series_in_memory
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import tiny


@dataclass(frozen=True, slots=True)
class Form:
    """A sweep of one size; `targets` are the ratios asked for, by metric."""

    size: str
    checkpoints: int
    sequences: int
    tokens: int
    targets: Mapping[str, float] = field(default_factory=dict)
    each_s: float = 30.0
    """About what it takes, peers and the making of weights included."""

    def __str__(self) -> str:
        return f"{self.size}, {self.checkpoints} checkpoints x {self.sequences} x {self.tokens}"

    @property
    def architecture(self) -> Architecture:
        """The true shape; a rehearsal's is tiny, with a head width that the kernels take."""
        return tiny(width=128, heads=2) if self.size == "tiny" else spec(self.size).architecture


def for_each(bench: Bench, forms: Iterable[Form], work: Callable[[Form, Path], None]) -> None:
    """The work on every form and its checkpoints, as long as there is time: an attempt each."""
    for form in forms:
        if not bench.rehearsal and bench.left_s < form.each_s:
            bench.note(str(form), {"left out": "no time was left"})
            continue
        with (
            bench.attempt(str(form)),
            series_in_memory(form.architecture, form.checkpoints, bench.device) as series,
        ):
            work(form, series)
