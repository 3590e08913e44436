"""When workers are asked for in the place of those that are lost."""

from time import monotonic

FIRST_TRIES = 3
"""So many workers in a row that die before they could say hello are replaced no longer at once."""
PAUSES_S = (60.0, 120.0, 240.0, 480.0, 900.0)
"""Until one more is tried then, one after the other; from then on always the last."""


class Replacing:
    """How many workers are owed, and how many of them are to be asked for now.

    All at once, unless `FIRST_TRIES` in a row have died before they could begin. From then on one
    at a time is tried, after pauses; once one is ready, all that are owed are asked for.
    """

    def __init__(self) -> None:
        self.died_early = 0
        self._owed = 0
        self._pauses = 0
        self._next_s = 0.0

    @property
    def pause_s(self) -> float:
        """How long after the last that died before it could begin another one is tried."""
        if self.died_early < FIRST_TRIES:
            return 0.0
        return PAUSES_S[min(self._pauses, len(PAUSES_S) - 1)]

    @property
    def hopeful(self) -> bool:
        """Whether one is owed, and it was not yet tried after each of the pauses."""
        return self._owed > 0 and self._pauses < len(PAUSES_S)

    def owe(self) -> None:
        """One is wanted in the place of one that is gone."""
        self._owed += 1

    def dies_early(self) -> None:
        """One more died before it could begin."""
        self.died_early += 1
        self._next_s = monotonic() + self.pause_s

    def joined(self) -> None:
        """One is ready: others may be, too."""
        self.died_early = self._pauses = 0

    def due(self) -> int:
        """How many are to be asked for now; they are no longer owed."""
        if self.died_early < FIRST_TRIES:
            due = self._owed
        elif self._owed and monotonic() >= self._next_s:
            due = 1
            self._pauses += 1
            self._next_s = monotonic() + self.pause_s
        else:
            return 0
        self._owed -= due
        return due
