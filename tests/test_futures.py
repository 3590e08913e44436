"""Waiting that an interrupt can end."""

import signal
import threading
from concurrent.futures import Future

import pytest

from pythia_fast.futures import result_of


def test_what_it_comes_to() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, (7,)).start()
    assert result_of(future) == 7


def test_its_error() -> None:
    future: Future[int] = Future()
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        result_of(future)


@pytest.mark.timeout(30)
def test_an_interrupt_that_another_thread_was_given() -> None:
    """The main thread refuses it, so that the system gives it to the one that waits for the end."""
    ready, over = threading.Event(), threading.Event()

    def other() -> None:
        ready.set()
        over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    threading.Timer(0.3, signal.pthread_kill, (thread.ident, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            result_of(Future())
    finally:
        over.set()
        thread.join()
