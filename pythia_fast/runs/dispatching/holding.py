"""A worker as the dispatcher sees it: its machine and what it holds."""

from dataclasses import dataclass, field

from pythia_fast.runs.dispatching.tasks import Task


@dataclass(slots=True, eq=False)
class Worker:
    """A worker: what it holds in the order in which it will do it, and whether each has begun."""

    number: int
    name: str
    host: str
    holds: dict[Task, bool] = field(default_factory=dict)
    asked: set[Task] = field(default_factory=set)
    model: int | None = None
    alone: bool = False  # with a suspect
    in_company: bool = False  # another of its host had something to do while it had
    cost: float = 0.0

    @property
    def place(self) -> tuple[int, float, int, str]:
        """Who comes first gets the next task: who holds few, and of little work."""
        return len(self.holds), self.cost, self.number, self.name

    @property
    def spare(self) -> Task | None:
        """What could be asked back: the last that has not begun, if it keeps another for itself."""
        if len(self.holds) - len(self.asked) < 2:
            return None
        for task in reversed(self.holds):
            if not self.holds[task] and task not in self.asked:
                return task
        return None
