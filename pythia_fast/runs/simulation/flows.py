"""Transfers that share what a wire, a disk or a core can carry, in simulated time."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping

_NEARLY_BYTES = 1.0  # of one that is as good as over


class Flows:
    """Transfers of one place, each at the same rate, which changes as they come and go.

    `version` grows with each change, so that what was foretold before can be told apart.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self.version = 0
        self._since_s = 0.0
        self._progress = 0.0  # bytes of one that has been there all the time
        self._ends: list[tuple[float, int, int]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, now_s: float, key: int, nbytes: float) -> None:
        """A transfer begins."""
        self._advance(now_s)
        heapq.heappush(self._ends, (self._progress + nbytes, self._added, key))
        self._added += 1
        self.version += 1

    def set_rate(self, now_s: float, rate: float) -> None:
        """From now on each has this rate."""
        self._advance(now_s)
        self.rate = rate
        self.version += 1

    def pop_ended(self, now_s: float, *, foretold: bool = False) -> list[int]:
        """The keys of those that are over; the first is where it was `foretold` for now.

        What is left of it may be moved in less time than the clock can tell.
        """
        self._advance(now_s)
        if foretold and self._ends:
            self._progress = max(self._progress, self._ends[0][0])
        ended = []
        while self._ends and self._ends[0][0] <= self._progress + _NEARLY_BYTES:
            ended.append(heapq.heappop(self._ends)[2])
        self.version += bool(ended)
        return ended

    def remove(self, now_s: float, key: int) -> None:
        """A transfer is given up."""
        self._advance(now_s)
        self._ends = [each for each in self._ends if each[2] != key]
        heapq.heapify(self._ends)
        self.version += 1

    @property
    def next_s(self) -> float:
        """When the first of them ends, if nothing changes."""
        if not self._ends or not self.rate:
            return math.inf
        if self.rate == math.inf:
            return self._since_s
        return self._since_s + max(0.0, self._ends[0][0] - self._progress) / self.rate

    def _advance(self, now_s: float) -> None:
        if self.rate == math.inf:
            self._progress = max((end for end, *_ in self._ends), default=self._progress)
        else:
            self._progress += (now_s - self._since_s) * self.rate
        self._since_s = now_s


class Wire:
    """One wire for all places: what each of them can take at most, and a fair part of the rest.

    Of `total` bytes a second each transfer gets as much as every other, but none more than its
    place's `own` has for it, nor than `each`; what these leave goes to the others (max-min
    fairness; Bertsekas and Gallager, Data Networks, section 6.5.2).
    """

    def __init__(self, total: float, own: float, each: float) -> None:
        self._total, self._own, self._each = total, own, each
        self._places: Counter[int] = Counter()  # how many have so many transfers
        self.level = math.inf

    def limit(self, transfers: int) -> float:
        """What one of a place's transfers gets at most, whatever the wire has."""
        return min(self._own / transfers, self._each)

    def changed(self, before: int, after: int) -> bool:
        """A place has so many transfers now; whether the others' part has changed by that."""
        self._places[before] -= 1
        self._places[after] += 1
        level = self._fair()
        differs = level != self.level
        self.level = level
        return differs

    def rate(self, transfers: int) -> float:
        """What each transfer of a place with so many gets."""
        return min(self.limit(transfers), self.level) if transfers else 0.0

    def _fair(self) -> float:
        """The rate of those transfers that only the wire itself holds back."""
        transfers: Counter[float] = Counter()
        for n, places in self._places.items():
            if n and places > 0:
                transfers[self.limit(n)] += n * places
        return fair_level(self._total, transfers)


def fair_level(total: float, transfers: Mapping[float, int]) -> float:
    """The rate that each gets who could take it, of so many transfers by the most they can take."""
    left, waiting = total, sum(transfers.values())
    for limit, count in sorted(transfers.items()):
        if limit >= left / waiting:
            return left / waiting
        left -= limit * count
        waiting -= count
    return math.inf  # there is more than all of them can take
