"""Work done ahead of whoever needs it: in order, in one background thread, a bounded number."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Generator[Result, None, None]:
    """`map(work, items)`, with up to `count` results made before they are asked for.

    While the consumer has one result, at most `count` others are there or in work; with 0 there is
    no thread. An error of `work` is raised in the place of its result. The thread starts with the
    first result and ends with the generator: at its end, at an error, at `close()`, and when it is
    no longer referred to, as after a `break`. It is never in the way of the interpreter's exit.
    """
    if count == 0:
        yield from map(work, items)
        return
    workers: list[int] = []
    pool = ThreadPoolExecutor(
        1, "pythia-fast-batches", initializer=lambda: workers.append(threading.get_ident())
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()  # no name keeps it: it is the consumer's
        while waiting:
            yield waiting.popleft().result()
    finally:
        # A cycle of references may be collected in any thread, and none can wait for itself.
        pool.shutdown(wait=threading.get_ident() not in workers, cancel_futures=True)
