"""Waiting for the work of other threads."""

from concurrent.futures import Future, wait
from typing import TypeVar

LOOK_UP_S = 0.25

Result = TypeVar("Result")


def result_of(future: Future[Result]) -> Result:
    """What the future comes to, or its error; Ctrl-C is heard within a moment.

    The system may give an interrupt to any thread. Python notes it, but does not wake its main
    thread, which alone may act on it, out of a wait without a limit.
    """
    while not wait((future,), LOOK_UP_S).done:
        pass
    return future.result()
