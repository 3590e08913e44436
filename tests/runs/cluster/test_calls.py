"""Which calls are waited for, and in which order their answers come."""

from types import SimpleNamespace

import pytest
from played_ray import Ray

from pythia_fast.runs.cluster import calls
from pythia_fast.runs.cluster.calls import GIVE_UP_S, SILENT_S, Call, Calls


def test_what_was_told_comes_first_and_nothing_of_who_is_forgotten() -> None:
    ray = Ray()
    waiting = Calls(ray)
    compute, poll, gone = Call("a", "compute", 0, 5), Call("a", "poll"), Call("b", "hello")
    for reference, call in enumerate((compute, gone, poll)):
        waiting.expect(reference, call)
    assert list(waiting.answered(0)) == []
    ray.answers |= dict.fromkeys(range(3))
    came = []
    for reference, call in waiting.answered(0):
        came.append((reference, call))
        waiting.forget("b")
    assert came == [(2, poll), (0, compute)]
    assert list(waiting.answered(0)) == []


def test_silence_is_told_once_until_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    waiting = Calls(Ray())
    waiting.hear("a")
    waiting.hear("b")
    told = []
    for clock.now_s in (SILENT_S, SILENT_S + 1, SILENT_S + 2, GIVE_UP_S, GIVE_UP_S + 1):
        told.append(list(waiting.silent()))
        waiting.hear("b")
    assert told == [
        [],
        [("a", SILENT_S + 1)],
        [],
        [("b", GIVE_UP_S - SILENT_S - 2)],
        [("a", GIVE_UP_S + 1)],
    ]
    waiting.forget("a")
    assert list(waiting.silent()) == []
