"""Steps with the weights of another: who waits for whose results, and who can take them."""

from collections import deque
from collections.abc import Iterable


class Waiting:
    """Steps that take the results of one with the same weights, once these are on the disk.

    Attributes:
        ready: pairs (step, first): `step` can take the results of `first` now.
    """

    def __init__(self) -> None:
        self._step_of_sha256: dict[str, int] = {}
        self._sha256_of: dict[int, str] = {}
        self._waiting: dict[int, tuple[int, ...]] = {}
        self.ready: deque[tuple[int, int]] = deque()

    @property
    def steps(self) -> tuple[int, ...]:
        """All that wait or can take results now."""
        twins = (step for steps in self._waiting.values() for step in steps)
        return (*twins, *(step for step, _ in self.ready))

    def put(self, steps: Iterable[int], first: int) -> None:
        """These wait for the results of `first`."""
        self._waiting[first] = tuple(steps)

    def let_take(self, steps: Iterable[int], first: int) -> None:
        """These can take the results of `first`."""
        self.ready += ((step, first) for step in steps)

    def finish(self, step: int, sha256: str | None) -> None:
        """A step's results are there; with the `sha256` of its weights they were computed."""
        if sha256 is not None:
            self._step_of_sha256.setdefault(sha256, step)
            self._sha256_of[step] = sha256
        self.let_take(self._waiting.pop(step, ()), step)

    def finished_with(self, sha256: str) -> int | None:
        """A step with these weights whose results were computed."""
        return self._step_of_sha256.get(sha256)

    def sha256_of(self, steps: Iterable[int]) -> str | None:
        """The digest of the weights that these steps have in common, as far as one was computed."""
        return next((self._sha256_of[step] for step in steps if step in self._sha256_of), None)

    def following(self, failed: int) -> int | None:
        """Who is to be loaded in the place of a step that failed; the others wait for that."""
        following, *others = self._waiting.pop(failed, ()) or (None,)
        if following is not None:
            self.put(others, following)
        return following

    def forget(self, first: int) -> None:
        """The results of a step are damaged: nobody is to take them."""
        known = self._step_of_sha256.items()
        self._step_of_sha256 = {sha256: step for sha256, step in known if step != first}

    def instead(self, step: int, first: int) -> None:
        """Those that were to take the results of `first`, which are damaged, wait for `step`."""
        self.forget(first)
        self.put((twin for twin, of in self.ready if of == first), step)
        self.ready = deque(pair for pair in self.ready if pair[1] != first)
