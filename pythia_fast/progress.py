"""How far long work is, on standard error: a bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from pythia_fast.quantities import duration, sized

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 30.0
TELL_EVERY_S = 1.0

_log = logging.getLogger("pythia_fast")


class Bar:
    """Counts what is done, and shows it until it is closed; used by `with`.

    A bar is drawn at once, and goes when it is closed; lines stay. Nothing is shown unless `on`, or
    where the shell has closed standard error. With `beside_output` there is no bar where standard
    output is the terminal too, as it would stand amid the output.

    Attributes:
        done: what is done, in units; "B" are bytes, and without a unit only the time is told.
        skipped: the part of it that says nothing of the speed.
        total: all there is to do, None where it is not known.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int | None = None,
        *,
        on: bool,
        beside_output: bool = False,
    ) -> None:
        self._what, self._unit, self.total = what, unit, total
        self.done = self.skipped = 0
        self._is_told = False
        self._remark = ""
        self._started = self._last_line = time.monotonic()
        amid = beside_output and (sys.stdout is None or _is_terminal(sys.stdout))
        self._on = on and not getattr(sys.stderr, "closed", sys.stderr is None) and not amid
        drawn = self._on and _is_terminal(sys.stderr)
        self._drawn = _draw(what, unit, total) if drawn else None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """The bar goes; lines stay."""
        if self._drawn is not None:
            self._drawn.close()

    def __call__(self, done: int, total: int | None = None) -> None:
        """So much is done, and of so much.

        What is done at the first call says nothing of the speed: an earlier attempt may have done
        it.
        """
        if total is not None and total != self.total:
            self.set_total(total)
        if self._is_told:
            self.advance(done - self.done)
        else:
            self._is_told = True
            self.skip(done - self.done)

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.done += count
        if self._drawn is not None:
            self._drawn.update(count)
        elif self.line_is_due():
            self.say(self.words())

    def skip(self, count: int) -> None:
        """So much more need not be done; less than 0 takes back what was skipped."""
        self.done += count
        self.skipped += count
        if self._drawn is not None:
            self._drawn.initial += count
            self._drawn.last_print_n += max(0, count)  # tqdm itself takes back what is negative
            self._drawn.update(count)

    def begin(self, what: str, unit: str, total: int | None = None) -> None:
        """From now on something else is counted, from 0 on, and nothing remarked of it."""
        self._what, self._unit, self.total = what, unit, total
        self.done = self.skipped = 0
        self._is_told = False
        self._remark = ""
        self._started = time.monotonic()
        if self._drawn is not None:
            self._drawn.unit, self._drawn.initial = _drawn_unit(unit), 0
            self._drawn.set_description(what, refresh=False)
            self._drawn.set_postfix_str("", refresh=False)
            self._drawn.total = total
            self._drawn.reset()

    def set_total(self, total: int) -> None:
        """All there is to do is this much after all."""
        self.total = total
        if self._drawn is not None:
            self._drawn.total = total
            self._drawn.refresh()

    def describe(self, what: str) -> None:
        """What the work is called now."""
        self._what = what
        if self._drawn is not None:
            self._drawn.set_description(what)

    def remark(self, text: str) -> None:
        """What is told behind the numbers from now on."""
        self._remark = text
        if self._drawn is not None:
            self._drawn.set_postfix_str(text)

    @contextmanager
    def telling(self, remark: Callable[[], str] | None = None) -> Iterator[None]:
        """While entered, a thread asks once a second what is to be told behind the numbers.

        For work of which a single piece takes long; the bar's clock goes on, and lines are written.
        """
        if not self._on:
            yield
            return
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(TELL_EVERY_S):
                self.remark(remark() if remark else "")
                if self.line_is_due():
                    self.say(self.words())

        thread = threading.Thread(target=tell, name="pythia-fast-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def is_drawn(self) -> bool:
        """Whether there is a bar, on a terminal."""
        return self._drawn is not None

    def line_is_due(self) -> bool:
        """Whether a line is to be written now instead of a bar; once it is, not for a while."""
        now = time.monotonic()
        if not self._on or self._drawn is not None or now - self._last_line < LINE_EVERY_S:
            return False
        self._last_line = now
        return True

    def say(self, text: str) -> None:
        """A line on standard error, if anything is shown at all."""
        if self._on:
            # A full disk, a reader that has gone, a program's own that does less than a file.
            with self.aside(), suppress(OSError, ValueError, AttributeError):
                print(text, file=sys.stderr, flush=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for lines of others on the terminal, and draw the bar again below them."""
        with nullcontext() if self._drawn is None else aside():
            yield

    def words(self) -> str:
        """How far the work is, in words."""
        elapsed_s = time.monotonic() - self._started
        if not self._unit:
            return f"{self._what}: {duration(elapsed_s)}"
        rate = (self.done - self.skipped) / elapsed_s if elapsed_s > 0 else 0.0
        amount = _bytes if self._unit == "B" else _number
        unit = "" if self._unit == "B" else f" {self._unit}"
        of, left = "", ""
        if self.total is not None:
            of = f"/{amount(self.total)}"
            if rate > 0:
                from tqdm import tqdm

                left = f", {tqdm.format_interval((self.total - self.done) / rate)} left"
        remark = f", {self._remark}" if self._remark else ""
        done = f"{amount(self.done)}{of}{unit}"
        return f"{self._what}: {done}, {amount(rate)}{unit}/s{left}{remark}"


def _is_terminal(stream: object) -> bool:
    """Whether a bar can be drawn there; a program's own stream may be closed, or say nothing."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return False


def _draw(what: str, unit: str, total: int | None) -> "tqdm[None]":
    from tqdm import tqdm  # here: most commands draw nothing

    return tqdm(
        total=total,
        desc=what,
        unit=_drawn_unit(unit),
        unit_scale=True,
        dynamic_ncols=True,
        leave=False,
        bar_format=None if unit else "{desc}: {elapsed}",
    )


def warn(text: str) -> None:
    """To the log, for what a user must hear whether progress is shown or not; no bar is broken."""
    with ExitStack() as stack:
        # Handlers first: one that writes by tqdm, in another thread, takes both in this order.
        for handler in _handlers():
            handler.acquire()
            stack.callback(handler.release)
        stack.enter_context(aside())
        with suppress(OSError, ValueError):  # a closed standard error
            _log.warning("%s", text, stacklevel=2)


def _handlers() -> Iterator[logging.Handler]:
    """Who is told what goes to the log."""
    logger: logging.Logger | None = _log
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


@contextmanager
def aside() -> Iterator[None]:
    """Make room for lines on the terminal, and draw all bars that are there again below them."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield


@contextmanager
def clock(what: str, *, on: bool = True) -> Iterator[None]:
    """While entered, how long it has taken; for work that cannot say how far it is."""
    with Bar(what, "", on=on) as bar, bar.telling():
        yield


def _bytes(nbytes: float) -> str:
    return sized(nbytes)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:.2g}"


def _drawn_unit(unit: str) -> str:
    """As tqdm takes it: it writes it right behind a number, and that behind a prefix."""
    return unit if unit == "B" else f" {unit}"
