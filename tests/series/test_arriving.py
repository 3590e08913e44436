"""What is said of downloads."""

import time
from types import SimpleNamespace

import pytest

from pythia_fast.series.arriving import Arriving


def test_how_much_has_come_and_how_fast_it_comes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ahead = SimpleNamespace(received_bytes=0, waits_for_room=False)
    words = Arriving(ahead)
    assert words() == ""
    now[0], ahead.received_bytes = 1002.0, 30_000_000
    assert words() == "30 MB received, 15 MB/s"
    now[0], ahead.received_bytes = 1012.0, 40_000_000
    assert words() == "40 MB received, 1 MB/s"
    ahead.waits_for_room = True
    assert words() == "waiting for room on the disk"
