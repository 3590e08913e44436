"""A task, and the queue of those that wait."""

from bisect import insort
from collections.abc import Set
from dataclasses import dataclass

KEEPS = 0.5
"""A worker keeps to its model while that has a step of this part of the highest cost that waits.

To change the model costs a start of its own, and to take a step half as costly before another
unbalances little. Of models that differ less, as 12b and 12b-deduped, each is gone through in turn.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One step of one model, whose `cost` grows with the work, in operations or whatever else.

    `model` is its position among the models asked for.
    """

    model: int
    step: int
    cost: float


class Queue:
    """Tasks that wait: of each model the most costly first, of equal ones the first that came."""

    def __init__(self) -> None:
        self._of_model: dict[int, list[tuple[float, int, Task]]] = {}
        self._number: dict[Task, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def models(self) -> set[int]:
        """The models of which something waits."""
        return set(self._of_model)

    def put(self, task: Task) -> None:
        """Queue it; one that was here before comes where it was."""
        number = self._number.setdefault(task, len(self._number))
        # Sorted backwards, so that the next one is the last.
        insort(self._of_model.setdefault(task.model, []), (task.cost, -number, task))
        self._count += 1

    def take(self, model: int | None, without: Set[int] = frozenset()) -> Task | None:
        """The most costly one, or one of `model` that is not much less so, of no model `without`.

        None if there is none.
        """
        heads = {
            each: tasks[-1][:2] for each, tasks in self._of_model.items() if each not in without
        }
        if not heads:
            return None
        first = max(heads, key=heads.__getitem__)
        if model in heads and heads[model][0] >= KEEPS * heads[first][0]:
            first = model
        tasks = self._of_model[first]
        task = tasks.pop()[2]
        if not tasks:
            del self._of_model[first]
        self._count -= 1
        return task

    def drop(self, model: int) -> list[Task]:
        """All of a model, which do not wait any longer."""
        dropped = [task for _, _, task in self._of_model.pop(model, [])]
        self._count -= len(dropped)
        return dropped
