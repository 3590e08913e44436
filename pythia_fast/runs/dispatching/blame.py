"""Whose fault it is that workers die: a step's, or a machine's."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pythia_fast.runs.dispatching.tasks import Task

RETRIES = 2
"""How often a step that was alone in a worker that died is tried again."""

SHUN_AFTER = 3
"""How many workers of a host die one after the other, with no step done there, until it is shunned.

One dies of its step, and another of a step that came from elsewhere; the third speaks against the
machine. What a bad one takes until then is done by others.
"""


@dataclass(slots=True)
class _Past:
    """What a step did so far: how often each host failed at it, and where workers died with it."""

    failed: Counter[str] = field(default_factory=Counter)
    died: set[str] = field(default_factory=set)
    died_alone: Counter[str] = field(default_factory=Counter)
    refused: bool = False


class Blame:
    """What happened to steps on hosts, and what follows: where to try again, when to give up."""

    def __init__(self) -> None:
        self._past: dict[Task, _Past] = {}
        # Of each host, what its workers died with since one of them finished something.
        self._deaths: dict[str, list[tuple[Task, ...]]] = {}

    def died(self, host: str, begun: Iterable[Task], *, alone: bool) -> None:
        """A worker died with what it had begun, which was `alone` in it."""
        tasks = tuple(begun)
        self._deaths.setdefault(host, []).append(tasks)
        for task in tasks:
            past = self._past.setdefault(task, _Past())
            past.failed[host] += 1
            past.died.add(host)
            past.died_alone[host] += alone

    def refused(self, host: str, task: Task) -> bool:
        """A host could not do a step: whether this is the first time, and it is noted."""
        past = self._past.setdefault(task, _Past())
        if past.refused:
            return False
        past.refused = True
        past.failed[host] += 1
        return True

    def finished(self, host: str, task: Task) -> None:
        """Both can be trusted."""
        self._deaths.pop(host, None)
        self._past.pop(task, None)

    def gives_up(self, task: Task, hosts: Collection[str]) -> bool:
        """Whether a step that died is not tried again; `hosts` have workers, or had just now."""
        alone = self._past[task].died_alone
        return alone.total() > RETRIES and (len(+alone) > 1 or len(hosts) < 2)

    def next_hosts(self, task: Task, hosts: Iterable[str]) -> set[str]:
        """Those of `hosts` that failed least often at a step: not at all, if there are such."""
        failed = self._past[task].failed
        times = {host: failed[host] for host in hosts}
        fewest = min(times.values(), default=0)
        return {host for host, number in times.items() if number == fewest}

    def deaths(self, host: str) -> int:
        """The workers of a host that died since one finished a step.

        Not those that died with a step of which workers of other hosts died as well: it was that.
        """
        return sum(
            not any(len(self._past[task].died) > 1 for task in tasks if task in self._past)
            for tasks in self._deaths.get(host, ())
        )
