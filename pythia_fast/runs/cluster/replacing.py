"""When workers are asked for in the place of those that are lost."""

from time import monotonic

FIRST_TRIES = 3
"""So many workers in a row that die before they could say hello are replaced no longer at once."""
PAUSE_S, LONGEST_PAUSE_S = 60.0, 900.0
"""Until one more is tried then; twice as long after each that dies, up to this."""


class Replacing:
    """How many workers are owed, and how many of them are to be asked for now.

    All at once, unless `FIRST_TRIES` in a row have died before they could begin. From then on one
    at a time is tried, after pauses; once one is ready, all that are owed are asked for.
    """

    def __init__(self) -> None:
        self.died_early = 0
        self._owed = 0
        self._next_s = 0.0

    @property
    def pause_s(self) -> float:
        """How long to wait after the last that died before it could begin."""
        if self.died_early < FIRST_TRIES:
            return 0.0
        return float(min(PAUSE_S * 2 ** (self.died_early - FIRST_TRIES), LONGEST_PAUSE_S))

    def owe(self) -> None:
        """One is wanted in the place of one that is gone."""
        self._owed += 1

    def dies_early(self) -> None:
        """One more died before it could begin."""
        self.died_early += 1
        self._next_s = monotonic() + self.pause_s

    def joined(self) -> None:
        """One is ready: others may be, too."""
        self.died_early = 0

    def due(self) -> int:
        """How many are to be asked for now; they are no longer owed."""
        if self.died_early < FIRST_TRIES:
            due = self._owed
        elif self._owed and monotonic() >= self._next_s:
            due = 1
            self._next_s = float("inf")  # until it is known what becomes of it
        else:
            return 0
        self._owed -= due
        return due
