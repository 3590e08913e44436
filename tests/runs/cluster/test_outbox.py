"""What a worker tells: all of it, and in order."""

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.runs.cluster.messages import Advanced, Began, Finished, Message
from pythia_fast.runs.cluster.outbox import Outbox

MESSAGES = st.one_of(
    st.builds(
        Advanced, st.integers(0, 1), st.integers(0, 1), st.integers(1, 9), skipped=st.booleans()
    ),
    st.builds(Began, st.integers(0, 1), st.integers(0, 1)),
)


@given(told=st.lists(MESSAGES), takes=st.sets(st.integers(0, 20)))
def test_nothing_is_lost_and_progress_is_added_up(told: list[Message], takes: set[int]) -> None:
    outbox = Outbox()
    taken: list[Message] = []
    for number, message in enumerate(told):
        outbox.put(message)
        if number in takes:
            taken += outbox.take(0)
    taken += outbox.take(0)

    def spread(messages: list[Message]) -> list[object]:
        """Each token by itself."""
        return [
            unit
            for each in messages
            for unit in (
                [(each.model, each.step, each.skipped)] * each.tokens
                if isinstance(each, Advanced)
                else [each]
            )
        ]

    assert spread(taken) == spread(told)
    assert len(taken) <= len(told)
    assert outbox.take(0) == []


def test_progress_that_waits_is_one_message() -> None:
    outbox = Outbox()
    for _ in range(1000):
        outbox.put(Advanced(0, 5, 7, skipped=False))
    assert outbox.take(0) == [Advanced(0, 5, 7000, skipped=False)]


def test_who_takes_waits_for_what_comes(until: Callable[[Callable[[], bool]], None]) -> None:
    outbox = Outbox()
    got: list[list[Message]] = []
    for wake in (lambda: outbox.put(Finished(0, 1, "a")), outbox.close):
        thread = threading.Thread(target=lambda: got.append(outbox.take(60.0)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        wake()
        thread.join()
    assert got == [[Finished(0, 1, "a")], []]
