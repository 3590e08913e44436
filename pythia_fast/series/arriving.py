"""What is said of checkpoints that are on their way from the Hub."""

import time

from pythia_fast.quantities import sized
from pythia_fast.series.sources import Ahead


class Arriving:
    """Called now and then: how much of what `ahead` fetches has come, and how fast since."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._before = ahead.received_bytes
        self._when = time.monotonic()

    def __call__(self) -> str:
        """In words; none where nothing comes over the network."""
        if self._ahead.waits_for_room:
            return "waiting for room on the disk"
        now, received = time.monotonic(), self._ahead.received_bytes
        if not received:
            return ""
        rate = (received - self._before) / (now - self._when) if now > self._when else 0.0
        self._before, self._when = received, now
        return f"{sized(received)} received, {sized(rate)}/s"
