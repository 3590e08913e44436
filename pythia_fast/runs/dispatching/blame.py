"""Whose fault it is that workers die: a step's, or a machine's."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

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
    """What a step did so far: how often each host failed at it, and where workers died with it.

    `died_alone` counts the deaths that only this step can have caused. `needs_quiet` says that one
    of them could have been caused by another step, which a worker beside it had.
    """

    failed: Counter[str] = field(default_factory=Counter)
    died: Counter[str] = field(default_factory=Counter)
    died_alone: Counter[str] = field(default_factory=Counter)
    needs_quiet: bool = False
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class _Death:
    """A worker's, with what it had begun; `blamed` is the step that was alone in it, if one was.

    `quiet` says that no other worker of its host had anything to do while it had.
    """

    begun: tuple[Task, ...]
    blamed: Task | None
    quiet: bool


class Blame:
    """What happened to steps on hosts, and what follows: where to try again, when to give up.

    A step that takes all memory of a machine takes the workers beside it along: where workers of a
    host die one after the other, and none has finished anything in between, none of their steps is
    blamed for it. Whichever was alone in its worker then, and not for the first time, is tried on a
    host where nothing else is done meanwhile, and blamed for what happens there.
    """

    def __init__(self) -> None:
        self._past: dict[Task, _Past] = {}
        # Of each host, what its workers died with since one of them finished something.
        self._deaths: dict[str, list[_Death]] = {}

    def died(self, host: str, begun: Iterable[Task], *, alone: bool, quiet: bool = True) -> None:
        """A worker died with what it had begun, which was `alone` in it.

        `quiet`: no other worker of the host had anything to do while it had.
        """
        tasks = tuple(begun)
        for task in tasks:
            past = self._past.setdefault(task, _Past())
            past.failed[host] += 1
            past.died[host] += 1
            past.died_alone[host] += alone
        deaths = self._deaths.setdefault(host, [])
        deaths.append(_Death(tasks, tasks[0] if alone and tasks else None, quiet))
        self._excuse(host, deaths)

    def _excuse(self, host: str, deaths: list[_Death]) -> None:
        """Where no step is in all of these deaths, none is blamed that others can have caused."""
        together = [set(death.begun) for death in deaths if death.begun and not death.quiet]
        in_all = set.intersection(*together) if together else set()
        for place, death in enumerate(deaths):
            task = death.blamed
            if task is None or death.quiet or task in in_all:
                continue
            deaths[place] = replace(death, blamed=None)
            past = self._past.get(task)
            if past is not None:
                past.died_alone[host] -= 1
                past.needs_quiet = past.needs_quiet or past.died.total() > 1

    def needs_quiet(self, task: Task) -> bool:
        """Whether a step is to be tried on a host where nothing else is done meanwhile."""
        return task in self._past and self._past[task].needs_quiet

    def refused(self, host: str, task: Task) -> bool:
        """A host could not do a step: whether this is the first time, and it is noted."""
        past = self._past.setdefault(task, _Past())
        if past.refused is not None:
            return False
        past.refused = host
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
        """Those of `hosts` that failed least often at a step: not at all, if there are such.

        Of equal ones not the one that refused it, nor one that is shunned, as long as there are
        others.
        """
        past = self._past[task]
        order = {
            host: (past.failed[host], host == past.refused, self.deaths(host) >= SHUN_AFTER)
            for host in hosts
        }
        first = min(order.values(), default=None)
        return {host for host, place in order.items() if place == first}

    def deaths(self, host: str) -> int:
        """The workers of a host that died since one finished a step; counted to `SHUN_AFTER`.

        Not those that died with a step of which workers of other hosts died as well: it was that.
        """
        against = (
            death for death in self._deaths.get(host, ()) if not any(map(self._kills, death.begun))
        )
        return sum(1 for _ in islice(against, SHUN_AFTER))

    def _kills(self, task: Task) -> bool:
        return task in self._past and len(self._past[task].died) > 1
