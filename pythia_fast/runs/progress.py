"""How far a sweep is: a bar on a terminal, a plain line every 30 s elsewhere."""

import copy
import sys
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

from pythia_fast.series.sources import Ahead
from pythia_fast.streaming.times import Bottleneck, LoadTimes

LINE_EVERY_S = 30.0


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
    tokens: int
    last_line: float
    received: tuple[Arriving | None, float, int]
    checkpoints_done: int = 0
    tokens_done: int = 0
    tokens_skipped: int = 0

    def words(self) -> str:
        """How many of the checkpoints are done."""
        return f"{self.checkpoints_done}/{self.checkpoints} checkpoints"


class Progress:
    """Counts tokens and checkpoints, and says which stage they wait for.

    Shows nothing if not `shown`; writes to standard error. Of several models each is told of
    through its own `of(model)`, and all count towards one total.
    """

    def __init__(self, *, checkpoints: int, tokens: int, shown: bool) -> None:
        self._shown = shown
        self._started = time.monotonic()
        self._counts = _Counts(checkpoints, tokens, self._started, (None, self._started, 0))
        self._bottleneck = Bottleneck()
        self._model: str | None = None
        self._tokens_of_step: Counter[int] = Counter()
        self._skipped_of_step: Counter[int] = Counter()
        self._bar: tqdm[None] | None = None
        if shown and sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=tokens,
                unit="tok",
                unit_scale=True,
                dynamic_ncols=True,
                desc=self._counts.words(),
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def of(self, model: str) -> "Progress":
        """The same, as one of several models tells of itself: its lines begin with its name."""
        part = copy.copy(self)
        part._model = model
        part._tokens_of_step, part._skipped_of_step = Counter(), Counter()
        return part

    def advance(self, tokens: int, step: int) -> None:
        """Some tokens more of a step have been looked at."""
        self._counts.tokens_done += tokens
        self._tokens_of_step[step] += tokens
        if self._bar is not None:
            self._bar.update(tokens)
        elif self._line_is_due():
            self._print(self.line())

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
        if self._bar is None and not self._line_is_due():
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
        if self._bar is not None:
            self._bar.set_postfix_str(what)
        else:
            self._print(f"{self.line()}; {what}")

    def leave_to_others(self, checkpoints: int, tokens: int) -> None:
        """So much of the whole is not this process's after all."""
        self._counts.checkpoints -= checkpoints
        self._counts.tokens -= tokens
        if self._bar is not None:
            self._bar.total = self._counts.tokens
            self._bar.set_description(self._counts.words())

    def leave_out(self, step: int, tokens: int) -> None:
        """A step of so many tokens cannot be finished: what is left of it is passed over."""
        self.skip(max(0, tokens - self._tokens_of_step[step]), step)

    def skip(self, tokens: int, step: int) -> None:
        """Some tokens of a step need not be looked at: done, but they say nothing of the speed."""
        self._tokens_of_step[step] += tokens
        self._skipped_of_step[step] += tokens
        self._counts.tokens_done += tokens
        self._counts.tokens_skipped += tokens
        if self._bar is not None:
            self._bar.initial += tokens
            self._bar.last_print_n += tokens
            self._bar.update(tokens)

    def again(self, step: int) -> None:
        """What was done of a step is lost, as far as it is not on the disk."""
        tokens = self._tokens_of_step.pop(step, 0)
        self._counts.tokens_done -= tokens
        skipped = self._skipped_of_step.pop(step, 0)
        self._counts.tokens_skipped -= skipped
        if self._bar is not None:
            self._bar.initial -= skipped
            self._bar.update(-tokens)

    def checkpoint_done(self) -> None:
        """One checkpoint more is finished."""
        self._counts.checkpoints_done += 1
        if self._bar is not None:
            self._bar.set_description(self._counts.words())

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        self._print(text if self._model is None else f"{self._model}: {text}")

    def _print(self, text: str) -> None:
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state in words."""
        elapsed_s = time.monotonic() - self._started
        computed = self._counts.tokens_done - self._counts.tokens_skipped
        rate = computed / elapsed_s if elapsed_s > 0 else 0.0
        left_s = (
            (self._counts.tokens - self._counts.tokens_done) / rate if rate > 0 else float("inf")
        )
        left = f", {tqdm.format_interval(left_s)} left" if left_s < float("inf") else ""
        bound = self._bottleneck.words()
        return (
            f"{self._counts.words()}, {self._counts.tokens_done:,}/{self._counts.tokens:,} tokens, "
            f"{rate:,.0f} tokens/s{left}"
            f"{f', {bound}' if bound else ''}"
        )

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if not self._shown or now - self._counts.last_line < LINE_EVERY_S:
            return False
        self._counts.last_line = now
        return True

    def _show_bottleneck(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._bottleneck.words() or "")
