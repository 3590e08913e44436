"""How far a sweep is: a bar on a terminal, a plain line every 30 s elsewhere."""

import copy
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pythia_fast.progress import Bar
from pythia_fast.series.sources import Ahead
from pythia_fast.streaming.times import Bottleneck, LoadTimes


class Arriving(Protocol):
    """What is known of files that are on their way."""

    @property
    def received_bytes(self) -> int:
        """What has come over the network since it began."""

    @property
    def waits_for_room(self) -> bool:
        """Whether they wait for room on the disk, not for the network."""


class Reporter(Protocol):
    """Who is told how far a step is."""

    def advance(self, tokens: int, step: int) -> None:
        """Some tokens more of a step have been looked at."""

    def skip(self, tokens: int, step: int) -> None:
        """Some tokens of a step need not be looked at."""

    def loaded(self, times: LoadTimes) -> None:
        """A checkpoint is there to compute with."""

    def computed(self, elapsed_s: float) -> None:
        """Computing has taken so much longer."""

    def waiting(self, step: int, ahead: Ahead) -> None:
        """Nothing can be computed before a step is there; `ahead` fetches it."""


@dataclass(slots=True)
class _Counts:
    """How far all models are, taken together."""

    checkpoints: int
    received: tuple[Arriving | None, float, int]
    checkpoints_done: int = 0

    def words(self) -> str:
        """How many of the checkpoints are done."""
        return f"{self.checkpoints_done}/{self.checkpoints} checkpoints"


class Progress:
    """Counts tokens and checkpoints, and says which stage they wait for.

    Shows nothing if not `shown`; writes to standard error. Of several models each is told of
    through its own `of(model)`, and all count towards one total.
    """

    def __init__(self, *, checkpoints: int, tokens: int, shown: bool) -> None:
        self._counts = _Counts(checkpoints, (None, time.monotonic(), 0))
        self._bottleneck = Bottleneck()
        self._model: str | None = None
        self._tokens_of_step: Counter[int] = Counter()
        self._skipped_of_step: Counter[int] = Counter()
        self._bar = Bar(self._counts.words(), "tokens", tokens, on=shown)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def of(self, model: str) -> "Progress":
        """The same, as one of several models tells of itself: its lines begin with its name."""
        part = copy.copy(self)
        part._model = model
        part._tokens_of_step, part._skipped_of_step = Counter(), Counter()
        return part

    def advance(self, tokens: int, step: int) -> None:
        """Some tokens more of a step have been looked at."""
        self._tokens_of_step[step] += tokens
        self._bar.advance(tokens)

    def loaded(self, times: LoadTimes) -> None:
        """A checkpoint is there to compute with."""
        self._bottleneck.loaded(times)
        self._show_bottleneck()

    def computed(self, elapsed_s: float) -> None:
        """Computing has taken so much longer."""
        self._bottleneck.computed(elapsed_s)
        self._show_bottleneck()

    def waiting(self, step: int, ahead: Arriving) -> None:
        """Nothing can be computed before a step is there; `ahead` fetches it."""
        if not self._bar.is_drawn and not self._bar.line_is_due():
            return
        now, received_bytes = time.monotonic(), ahead.received_bytes
        known, then, before = self._counts.received
        self._counts.received = (ahead, now, received_bytes)
        of = "" if self._model is None else f" of {self._model}"
        what = f"waiting for step {step}{of}"
        if ahead.waits_for_room:
            what += ", which waits for room on the disk"
        elif received_bytes and ahead is known and now > then:
            what += f", {(received_bytes - before) / (now - then) / 1e6:,.1f} MB/s"
        if self._bar.is_drawn:
            self._bar.remark(what)
        else:
            self._bar.say(f"{self.line()}; {what}")

    def leave_to_others(self, checkpoints: int, tokens: int) -> None:
        """So much of the whole is not this process's after all."""
        self._counts.checkpoints -= checkpoints
        self._bar.set_total((self._bar.total or 0) - tokens)
        self._bar.describe(self._counts.words())

    def leave_out(self, step: int, tokens: int) -> None:
        """A step of so many tokens cannot be finished: what is left of it is passed over."""
        self.skip(max(0, tokens - self._tokens_of_step[step]), step)

    def skip(self, tokens: int, step: int) -> None:
        """Some tokens of a step need not be looked at: done, but they say nothing of the speed."""
        self._tokens_of_step[step] += tokens
        self._skipped_of_step[step] += tokens
        self._bar.skip(tokens)

    def again(self, step: int) -> None:
        """What was done of a step is lost, as far as it is not on the disk."""
        tokens = self._tokens_of_step.pop(step, 0)
        skipped = self._skipped_of_step.pop(step, 0)
        self._bar.skip(-skipped)
        self._bar.advance(skipped - tokens)

    def checkpoint_done(self) -> None:
        """One checkpoint more is finished."""
        self._counts.checkpoints_done += 1
        self._bar.describe(self._counts.words())

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        self._bar.say(text if self._model is None else f"{self._model}: {text}")

    def line(self) -> str:
        """The state in words."""
        return self._bar.words()

    def _show_bottleneck(self) -> None:
        self._bar.remark(self._bottleneck.words() or "")
