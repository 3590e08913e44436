"""How far a sweep is: a bar on a terminal, a plain line every 30 s elsewhere."""

import sys
import time
from collections import Counter
from types import TracebackType

from tqdm import tqdm

from pythia_fast.runs.times import Bottleneck, LoadTimes
from pythia_fast.series.sources import Ahead

LINE_EVERY_S = 30.0


class Progress:
    """Counts tokens and checkpoints, and says which stage they wait for.

    Shows nothing if not `shown`; writes to standard error.
    """

    def __init__(self, *, checkpoints: int, tokens: int, shown: bool) -> None:
        self._checkpoints, self._tokens = checkpoints, tokens
        self._checkpoints_done = self._tokens_done = self._tokens_skipped = 0
        self._shown = shown
        self._started = self._last_line = time.monotonic()
        self._bottleneck = Bottleneck()
        self._received: tuple[Ahead | None, float, int] = (None, self._started, 0)
        self._tokens_of_step: Counter[int] = Counter()
        self._bar: tqdm[None] | None = None
        if shown and sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=tokens,
                unit="tok",
                unit_scale=True,
                dynamic_ncols=True,
                desc=f"0/{checkpoints} checkpoints",
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

    def advance(self, tokens: int, step: int) -> None:
        """Some tokens more of a step have been looked at."""
        self._tokens_done += tokens
        self._tokens_of_step[step] += tokens
        if self._bar is not None:
            self._bar.update(tokens)
        elif self._line_is_due():
            self.say(self.line())

    def loaded(self, times: LoadTimes) -> None:
        """A checkpoint is there to compute with."""
        self._bottleneck.loaded(times)
        self._show_bottleneck()

    def computed(self, elapsed_s: float) -> None:
        """Computing has taken so much longer."""
        self._bottleneck.computed(elapsed_s)
        self._show_bottleneck()

    def waiting(self, step: int, ahead: Ahead) -> None:
        """Nothing can be computed before a step is there; `ahead` fetches it."""
        if self._bar is None and not self._line_is_due():
            return
        now, received_bytes = time.monotonic(), ahead.received_bytes
        known, then, before = self._received
        self._received = (ahead, now, received_bytes)
        what = f"waiting for step {step}"
        if ahead.waits_for_room:
            what += ", which waits for room on the disk"
        elif received_bytes and ahead is known and now > then:
            what += f", {(received_bytes - before) / (now - then) / 1e6:,.1f} MB/s"
        if self._bar is not None:
            self._bar.set_postfix_str(what)
        else:
            self.say(f"{self.line()}; {what}")

    def leave_out(self, step: int, tokens: int) -> None:
        """A step of so many tokens cannot be finished: what is left of it is passed over."""
        self.skip(max(0, tokens - self._tokens_of_step[step]), step)

    def skip(self, tokens: int, step: int) -> None:
        """Some tokens of a step need not be looked at: done, but they say nothing of the speed."""
        self._tokens_of_step[step] += tokens
        self._tokens_done += tokens
        self._tokens_skipped += tokens
        if self._bar is not None:
            self._bar.initial += tokens
            self._bar.last_print_n += tokens
            self._bar.update(tokens)

    def checkpoint_done(self) -> None:
        """One checkpoint more is finished."""
        self._checkpoints_done += 1
        if self._bar is not None:
            self._bar.set_description(f"{self._checkpoints_done}/{self._checkpoints} checkpoints")

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state in words."""
        elapsed_s = time.monotonic() - self._started
        computed = self._tokens_done - self._tokens_skipped
        rate = computed / elapsed_s if elapsed_s > 0 else 0.0
        left_s = (self._tokens - self._tokens_done) / rate if rate > 0 else float("inf")
        left = f", {tqdm.format_interval(left_s)} left" if left_s < float("inf") else ""
        bound = self._bottleneck.words()
        return (
            f"{self._checkpoints_done}/{self._checkpoints} checkpoints, "
            f"{self._tokens_done:,}/{self._tokens:,} tokens, {rate:,.0f} tokens/s{left}"
            f"{f', {bound}' if bound else ''}"
        )

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if not self._shown or now - self._last_line < LINE_EVERY_S:
            return False
        self._last_line = now
        return True

    def _show_bottleneck(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._bottleneck.words() or "")
