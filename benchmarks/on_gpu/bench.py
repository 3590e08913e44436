"""What every theme of gpu.py works with: cases within a time, answers first, rows kept at once."""

import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from comparison import Comparison, Ours
from roofline import Roofline, Work

from on_gpu.clock import Call, Clock, WallClock, clock_of

Case = TypeVar("Case")
Answer = Callable[[], torch.Tensor]
Keep = Callable[[Comparison], object]

HALVES = (torch.float16, torch.bfloat16)
CASE_S = 0.5
"""What the rounds of a case may take together, unless these are too few."""
FEWEST_ROUNDS, MOST_ROUNDS = 7, 50
ROUNDING = 1e-6
ANOTHER = 2e-2
"""What is so far from the exact result, by its norm, is another one, not the same in half types."""


class WrongAnswerError(AssertionError):
    """A kernel or a peer gives another answer: its time is no matter."""


class Bench(Comparison):
    """The rows of one theme on one device.

    After `seconds` no further case is begun. `keep` is called after every row, so that what was
    measured is on the disk whatever comes. A rehearsal takes tiny shapes, on the CPU, in triton's
    interpreter: it shows that everything runs, and its times mean nothing.
    """

    def __init__(
        self,
        theme: str,
        device: torch.device,
        roofline: Roofline,
        *,
        seconds: float,
        keep: Keep,
    ) -> None:
        super().__init__(theme, roofline=roofline)
        self.device = device
        self.rehearsal = device.type != "cuda"
        self.failures: list[str] = []
        self._end_s = time.monotonic() + seconds
        self._keep = keep
        self._random = torch.Generator(device).manual_seed(0)

    @property
    def left_s(self) -> float:
        """Seconds until the theme's time is over."""
        return self._end_s - time.monotonic()

    @property
    def halves(self) -> tuple[torch.dtype, ...]:
        """The types to measure; the interpreter multiplies bfloat16 wrongly."""
        return HALVES[:1] if self.rehearsal else HALVES

    def random(
        self, *shape: int, dtype: torch.dtype = torch.float16, scale: float = 1.0
    ) -> torch.Tensor:
        """Normal numbers on the device: zeros are multiplied faster, since they switch no wires."""
        made = torch.randn(shape, generator=self._random, device=self.device)
        return made.mul_(scale).to(dtype)

    def poisoned(self, *shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        """Memory for a result, full of NaN: what is not written shows."""
        return torch.full(shape, torch.nan, dtype=dtype, device=self.device)

    def ids(self, end: int, *shape: int) -> torch.Tensor:
        """Random numbers below `end`, int64, on the device."""
        return torch.randint(end, shape, generator=self._random, device=self.device)

    def within_time(self, cases: Iterable[Case], *, each_s: float = 0.0) -> Iterator[Case]:
        """The cases in turn, while there is time for `each_s`; the others are noted as left out."""
        for case in cases:
            if self.left_s > each_s:
                yield case
            else:
                self.note(str(case), {"left out": "no time was left"})

    @contextmanager
    def attempt(self, case: str) -> Iterator[None]:
        """A case that fails is noted and the next goes on, unless the GPU's context is lost."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            said = str(error).splitlines() or [""]
            self.note(case, {"failed": f"{type(error).__name__}: {said[0][:200]}"})
            self.failures.append(case)
            if isinstance(error, torch.AcceleratorError):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def answers(
        self,
        ours: Answer,
        peers: Mapping[str, Answer],
        exact: torch.Tensor,
        at: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[str, float]:
        """Ours errs at most twice as much as the best peer, both against float64, in every place.

        `exact` are the places `at` of the result. A peer must answer the same question; one that
        cannot run here is left out. WrongAnswerError, or the errors for the rows.
        """
        found = ours()
        if bool(found.isnan().any()):
            raise WrongAnswerError("places of the result were not written, or are NaN")
        error = float((at(found).double() - exact).abs().max())
        of_peers = {}
        for name, call in peers.items():
            try:
                theirs = at(call()).double()
            except torch.AcceleratorError:
                raise
            except (RuntimeError, ImportError):
                continue  # the race says so
            if not (theirs - exact).norm() <= ANOTHER * exact.norm():
                raise WrongAnswerError(f"{name} answers another question")
            of_peers[name] = float((theirs - exact).abs().max())
        if not error <= 2 * min(of_peers.values()) + ROUNDING:
            raise WrongAnswerError(f"the error is {error:.3g}, those of torch {of_peers}")
        return {"error": error, "peers_error": min(of_peers.values())}

    def race(
        self,
        case: str,
        ours: Call,
        peers: Mapping[str, Call],
        *,
        work: Work | None = None,
        target: Mapping[str, float] | None = None,
        best_target: float | None = None,
        numbers: Mapping[str, float] | None = None,
        cache: str = "L2 written over before each call",
        clock: Clock | None = None,
        case_s: float = CASE_S,
        fewest: int = FEWEST_ROUNDS,
        warm: bool = True,
    ) -> dict[str, float]:
        """Time ours and its peers by turns; returns each peer's ratio (above 1: ours is faster).

        As many rounds as fit into `case_s`, `fewest` at least, after a call of each that is not
        counted, if they are to be `warm`. A peer that cannot run here is noted with what it says.
        `best_target` is the ratio that is asked for against the fastest of those that `target`
        names none for.
        """
        clock = clock or clock_of(self.device)
        calls: dict[str, Call] = {}
        launched: dict[str, str] = {}
        for name, call in {"ours": ours, **peers}.items():
            try:
                calls[name], launched[name] = clock.ready(call) if warm else (call, "eager")
            except torch.AcceleratorError:
                raise
            except (RuntimeError, ImportError) as error:
                if name == "ours":
                    raise
                said = str(error).splitlines() or [""]
                self.note(case, {"without": name, "because": said[0][:160]})
        times = clock.rounds(calls, 1)
        fitting = int(case_s / max(sum(map(sum, times.values())), 1e-6))
        rounds = 1 if self.rehearsal else min(MOST_ROUNDS, max(fewest, fitting))
        for name, more in clock.rounds(calls, rounds - 1).items():
            times[name] += more
        asked = dict(target or {})
        candidates = [name for name in calls if name != "ours" and name not in asked]
        if best_target is not None and candidates:
            best = min(candidates, key=lambda name: statistics.median(times[name]))
            asked[best] = best_target
        one = Ours(case, ours, work, asked, numbers or {})
        ratios = {}
        for name in calls:
            if name == "ours":
                continue
            row = self._row(one, name, times["ours"], times[name], {})
            how = f"{launched['ours']}, {launched[name]}"
            self.rows.append(row | {"rounds": rounds, "launched": how, "cache": cache})
            ratios[name] = row["ratio_median"]
        if not ratios:
            median_s = statistics.median(times["ours"])
            reached = self.roofline.describe(work, median_s) if self.roofline and work else {}
            spread = {
                "median_s": median_s,
                "min_s": min(times["ours"]),
                "max_s": max(times["ours"]),
            }
            self.rows.append({"case": case, **spread, **reached, **(numbers or {})})
        self._keep(self)
        return ratios

    def note(self, case: str, numbers: Mapping[str, Any]) -> None:
        """A row that is no race, kept at once."""
        super().note(case, numbers)
        self._keep(self)

    @property
    def wall(self) -> Clock:
        """For whole sweeps."""
        return WallClock(self.device)


def name_of(dtype: torch.dtype) -> str:
    """As "float16"."""
    return str(dtype).removeprefix("torch.")
