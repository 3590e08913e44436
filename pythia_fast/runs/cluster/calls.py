"""The calls of workers that wait for an answer, and the workers that have given none for long."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

SILENT_S, GIVE_UP_S = 60.0, 300.0
"""A worker answers every few seconds; after so long it is spoken of, and then counts as lost."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who was called, and for what; `model` and `step` are those of a call about a step."""

    worker: str
    kind: Literal["hello", "poll", "compute", "give back"]
    model: int = 0
    step: int = 0


class Calls:
    """What was asked of workers and is not answered yet. References are Ray's."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._waiting: dict[Any, Call] = {}
        self._heard_s: dict[str, float] = {}
        self._told_silent: set[str] = set()

    def expect(self, reference: Any, call: Call) -> None:
        """An answer is to come."""
        self._waiting[reference] = call

    def hear(self, worker: str) -> None:
        """A worker has answered, from which on its silence counts."""
        self._heard_s[worker] = time.monotonic()
        self._told_silent.discard(worker)

    def forget(self, worker: str) -> None:
        """A worker is gone: no answer of it is waited for."""
        self._waiting = {
            reference: call for reference, call in self._waiting.items() if call.worker != worker
        }
        self._heard_s.pop(worker, None)
        self._told_silent.discard(worker)

    def answered(self, patience_s: float) -> Iterator[tuple[Any, Call]]:
        """What is answered, at least one call unless none is for so long.

        What workers had to tell comes first: their other calls may say that they have died since.
        Those of a worker that is forgotten meanwhile do not come.
        """
        if not self._waiting:
            time.sleep(patience_s)
            return
        ready, _ = self._ray.wait(
            list(self._waiting), num_returns=1, timeout=patience_s, fetch_local=False
        )
        more, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        for reference in sorted(
            dict.fromkeys((*ready, *more)), key=lambda each: self._waiting[each].kind != "poll"
        ):
            call = self._waiting.pop(reference, None)
            if call is not None:
                yield reference, call

    def silent(self) -> Iterator[tuple[str, float]]:
        """Workers that are silent for `SILENT_S`, once, and those that are for `GIVE_UP_S`."""
        now_s = time.monotonic()
        for worker, heard_s in list(self._heard_s.items()):
            silent_s = now_s - heard_s
            if silent_s > GIVE_UP_S or (silent_s > SILENT_S and worker not in self._told_silent):
                self._told_silent.add(worker)
                yield worker, silent_s
