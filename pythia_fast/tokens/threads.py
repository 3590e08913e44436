"""How many threads work, where nobody says."""

import os

from pythia_fast.quantities import integer

_MOST = 1 << 16  # as many as the native code takes


def thread_count(threads: int | None) -> int:
    """`threads`, or one for each of this process's processors. ArgumentError for no integer."""
    if threads is None:
        return len(os.sched_getaffinity(0))
    return min(integer(threads, "threads"), _MOST)
