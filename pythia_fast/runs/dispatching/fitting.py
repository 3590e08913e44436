"""Which models cannot be held where: by a worker, or by any of a host."""

from collections.abc import Iterable, Set

from pythia_fast.runs.dispatching.holding import Worker


class Fitting:
    """What workers have said of models that they could not even begin with.

    That of one counts for its host, until another one there has begun with a step of the model.
    """

    def __init__(self) -> None:
        self._of_worker: dict[str, set[int]] = {}
        self._of_host: dict[str, set[int]] = {}
        self._able: set[tuple[str, int]] = set()

    def begun(self, host: str, model: int) -> None:
        """A worker of a host has begun with a step of a model: it can be held there."""
        self._able.add((host, model))
        self._of_host.get(host, set()).discard(model)

    def unfit(self, worker: Worker, model: int) -> None:
        """A worker cannot hold a model."""
        self._of_worker.setdefault(worker.name, set()).add(model)
        if (worker.host, model) not in self._able:
            self._of_host.setdefault(worker.host, set()).add(model)

    def without(self, worker: Worker) -> Set[int]:
        """The models that a worker is not given."""
        if not self._of_worker:
            return frozenset()
        nothing: set[int] = set()
        own = self._of_worker.get(worker.name, nothing)
        return own | self._of_host.get(worker.host, nothing)

    def fits(self, worker: Worker, model: int) -> bool:
        """Whether a worker may be given steps of a model."""
        return model not in self.without(worker)

    def hosts_for(self, model: int, workers: Iterable[Worker]) -> set[str]:
        """The hosts of those workers that may be given steps of a model."""
        return {worker.host for worker in workers if self.fits(worker, model)}

    def hosts_without(self, model: int) -> set[str]:
        """The hosts on which a model cannot be held."""
        return {host for host, models in self._of_host.items() if model in models}
