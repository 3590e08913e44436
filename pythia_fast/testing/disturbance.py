"""Faults by lot, the same for the same seed and number of request: for soaks."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pythia_fast.errors import ArgumentError
from pythia_fast.testing.fault import Fault, Kind

LISTING_KINDS: tuple[Kind, ...] = ("fail", "hang", "truncate")
FILE_KINDS: tuple[Kind, ...] = (
    "fail", "hang", "corrupt", "cut", "stall", "slow", "ignore_range",
)  # fmt: skip
HEAD_KINDS: tuple[Kind, ...] = ("fail", "hang")
KINDS: tuple[Kind, ...] = (*FILE_KINDS, "truncate")
STATUS = (429, 500, 502, 503, 504)


@dataclass(slots=True)
class Disturbance:
    """Spoils `rate` of all answers, by a kind of `kinds` that can befall the answer.

    An answer that no kind can befall is left alone. One without a body of its own, to HEAD or with
    a redirect, can only fail or hang.

    A hang or a stall lasts `hang_s`, then the connection is closed.
    """

    rate: float
    seed: int
    kinds: Sequence[str] = KINDS
    hang_s: float = 1.0
    slow_bytes_per_s: float = 2.0**20
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ArgumentError(f"a rate is from 0 to 1, not {self.rate}")
        if unknown := set(self.kinds) - set(KINDS):
            raise ArgumentError(
                f"no fault by lot: {', '.join(sorted(unknown))}; {', '.join(KINDS)}"
            )

    def draw(self, method: str, *, file: bool, redirect: bool = False) -> Fault | None:
        """The fault of the next request, for a file's bytes or a listing; None for most.

        `redirect` means that the answer only says where the bytes are.
        """
        with self._lock:
            number = self._number
            self._number += 1
        return self.fault_of(number, method, file=file, redirect=redirect)

    def fault_of(
        self, number: int, method: str, *, file: bool, redirect: bool = False
    ) -> Fault | None:
        """What befalls the request with this number, counted from 0, if it is of this sort."""
        lot = random.Random(f"{self.seed} {number}")
        if lot.random() >= self.rate:
            return None
        bare = method == "HEAD" or redirect
        possible = HEAD_KINDS if bare else FILE_KINDS if file else LISTING_KINDS
        drawn = [kind for kind in possible if kind in self.kinds]
        if not drawn:
            return None
        status = lot.choice(STATUS)
        return Fault(
            lot.choice(drawn),
            status=status,
            headers={"Retry-After": "1"} if status == 429 else {},
            bytes_per_s=self.slow_bytes_per_s,
            where=lot.random(),
            hang_s=self.hang_s,
        )
