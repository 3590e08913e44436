"""Transfers that share what a wire, a disk or a core can carry, in simulated time."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Downloads that have the same limits: how many files each hashes at once, and how many bytes.

    `hashed` is so many for each byte that comes.
    """

    files: int
    hashed: float


@dataclass(frozen=True, slots=True)
class Place:
    """What is under way at one place: downloads, and files that are hashed after they were read."""

    coming: tuple[tuple[Kind, int], ...] = ()
    hashing: int = 0


@dataclass(frozen=True, slots=True)
class Shares:
    """What each transfer of a place gets, in its own bytes a second.

    `hash_bound` are the kinds of downloads that only their hashing holds back.
    """

    coming: Mapping[Kind, float]
    hashing: float
    hash_bound: frozenset[Kind]


class Wire:
    """One wire for all places: what each of them can take at most, and a fair part of the rest.

    Of `total` bytes a second each transfer gets as much as every other, but none more than its
    place's `own` has for it, nor than `each`, nor than can be hashed of it: `core` bytes a second
    of a file, `cores` of all of a place. What these leave goes to the others (max-min fairness;
    Bertsekas and Gallager, Data Networks, section 6.5.2).
    """

    def __init__(
        self,
        total: float = math.inf,
        own: float = math.inf,
        each: float = math.inf,
        core: float = math.inf,
        cores: float = math.inf,
    ) -> None:
        self._total, self._own, self._each = total, own, each
        self._core, self._cores = core, cores
        self._places: Counter[Place] = Counter()  # how many there are of each
        self._level = math.inf
        self._limits: dict[Place, tuple[dict[Kind, float], dict[Kind, float]]] = {}
        self._shares: dict[Place, Shares] = {}

    def changed(self, before: Place, after: Place) -> bool:
        """Another thing is under way at a place; whether the others' part has changed by that."""
        self._places[before] -= 1
        if not self._places[before]:
            del self._places[before]
        self._places[after] += 1
        level = self._fair()
        differs = level != self._level
        if differs:
            self._shares.clear()
        self._level = level
        return differs

    def shares(self, place: Place) -> Shares:
        """What each transfer of such a place gets."""
        if place not in self._shares:
            self._shares[place] = self._share(place)
        return self._shares[place]

    def _share(self, place: Place) -> Shares:
        limits, of_hashing = self._limits_of(place)
        coming = {kind: min(limit, self._level) for kind, limit in limits.items()}
        hashing = 0.0
        if place.hashing:  # they have what the downloads leave
            taken = sum(coming[kind] * kind.hashed * count for kind, count in place.coming)
            left = self._cores if self._cores == math.inf else max(0.0, self._cores - taken)
            hashing = min(self._core, left / place.hashing)
        return Shares(
            coming, hashing, frozenset(kind for kind in coming if coming[kind] == of_hashing[kind])
        )

    def _limits_of(self, place: Place) -> tuple[dict[Kind, float], dict[Kind, float]]:
        """What a transfer of each kind gets at most, whatever the wire has; and by its hashing."""
        if place not in self._limits:
            wanted = Counter({self._core: place.hashing} if place.hashing else {})
            for kind, count in place.coming:
                wanted[self._core * kind.files] += count
            level = fair_level(self._cores, wanted)
            by_hash = {
                kind: min(self._core * kind.files, level) / kind.hashed for kind, _ in place.coming
            }
            alone = {kind: min(self._each, limit) for kind, limit in by_hash.items()}
            coming: Counter[float] = Counter()
            for kind, count in place.coming:
                coming[alone[kind]] += count
            level = fair_level(self._own, coming)
            self._limits[place] = {kind: min(alone[kind], level) for kind in alone}, by_hash
        return self._limits[place]

    def _fair(self) -> float:
        """The rate of those transfers that only the wire itself holds back."""
        if self._total == math.inf:
            return math.inf
        transfers: Counter[float] = Counter()
        for place, places in self._places.items():
            if places > 0 and place.coming:
                limits, _ = self._limits_of(place)
                for kind, count in place.coming:
                    transfers[limits[kind]] += count * places
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
