"""The harness's tasks: found by name, loaded, and their requests built once."""

import copy
import errno
import fnmatch
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, HubError, ReadError
from pythia_fast.evaluation.definitions import (
    broken_definition,
    check_definitions,
    config_of,
    told,
)
from pythia_fast.evaluation.identity import group_identity, task_identity
from pythia_fast.evaluation.quiet import SEEDS, documents_counted
from pythia_fast.extras import require
from pythia_fast.progress import Bar
from pythia_fast.words import near

SUITE = (
    *("lambada_openai", "wikitext", "piqa", "sciq", "wsc", "winogrande"),
    *("arc_easy", "arc_challenge", "logiqa", "blimp", "mmlu"),
)
"""The eleven benchmarks of the Pythia suite (arXiv:2304.01373), as the harness calls them."""

Tasks = str | Mapping[str, Any] | Sequence[Any]
"""Names of the harness, patterns such as "blimp_*", "suite", configurations, or task objects."""


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their requests. `found` is what the harness's `TaskManager.load` gives."""

    found: dict[str, Any]
    limit: float | None

    @property
    def tasks(self) -> dict[str, Any]:
        """The harness's task objects by name."""
        tasks: dict[str, Any] = self.found["tasks"]
        return tasks

    def requests(self, only: str | None = None) -> dict[str, list[Any]]:
        """What is asked of the model, by the harness's kinds, as often as it is asked.

        Of one task, or of all.
        """
        by_kind: dict[str, list[Any]] = {}
        for name, task in self.tasks.items():
            for request in task.instances if only in (None, name) else ():
                by_kind.setdefault(request.request_type, []).extend([request] * request.repeats)
        return by_kind

    def forget_answers(self) -> None:
        """Make the requests ready for another model."""
        for task in self.tasks.values():
            for request in task.instances:
                request.resps, request.filtered_resps = [], {}

    def identity(self) -> dict[str, Any]:
        """All that determines what is asked and how answers are rated, as plain JSON."""
        return {
            "tasks": {name: task_identity(task) for name, task in self.tasks.items()},
            "groups": {name: group_identity(each) for name, each in self.found["groups"].items()},
        }


def load_tasks(
    tasks: Tasks,
    *,
    num_fewshot: int | None = None,
    limit: float | None = None,
    include_path: str | Path | Sequence[str | Path] | None = None,
    bar: Bar | None = None,
) -> LoadedTasks:
    """Load tasks and build their requests; to be called inside `quiet_harness`.

    Task objects that are given stay as they are: requests are built in copies. `bar` counts the
    documents of each task whose requests are built.

    ArgumentError for names that are not known, with the nearest, and for tasks that cannot be
    built; FormatError for a file of the user's that is no definition of a task; HubError for data
    that cannot be had; ReadError for an `include_path` that is no folder.
    """
    require("lm_eval")
    wanted = _wanted(tasks)
    folders = _folders(include_path)
    manager, specifications = _resolved(wanted, folders)
    check = partial(check_definitions, specifications, manager.task_index, folders)
    try:
        found: dict[str, Any] = manager.load([_copied(each) for each in specifications])
    except Exception as error:
        _raise_missing_data(error, wanted)
        check()
        raise _loading_error(error, wanted, manager.task_index) from error
    loaded = LoadedTasks(found, limit)
    if not loaded.tasks or not all(isinstance(name, str) for name in loaded.tasks):
        check()
        raise ArgumentError(f"{', '.join(map(str, wanted))} hold no tasks: nothing to evaluate")
    count = len(loaded.tasks)
    for number, (name, task) in enumerate(loaded.tasks.items(), 1):
        what = f"build requests of {name} (task {number} of {count})"
        with nullcontext() if bar is None else documents_counted(what, bar):
            try:
                _build(name, task, num_fewshot, limit)
            except ArgumentError:
                check()
                raise
    return loaded


def task_names(
    include_path: str | Path | Sequence[str | Path] | None = None,
) -> tuple[str, ...]:
    """The names of all tasks, groups and tags that the harness finds, in order (extra: `eval`)."""
    require("lm_eval")
    return tuple(_manager(_folders(include_path), defaults=True).all_tasks)


def _wanted(tasks: Tasks) -> list[Any]:
    """Each task once: names with commas are several, "suite" is eleven."""
    if isinstance(tasks, str):
        tasks = tasks.split(",")
    elif isinstance(tasks, Mapping) or not isinstance(tasks, Sequence):
        tasks = [tasks]
    wanted: list[Any] = []
    for task in tasks:
        name = task.strip() if isinstance(task, str) else task
        for each in SUITE if name == "suite" else (name,):
            if each != "" and each not in wanted:
                wanted.append(each)
    if not wanted:
        raise ArgumentError(
            f"tasks are names of the harness, such as {SUITE[0]!r}, or 'suite' for the suite's "
            f"{len(SUITE)} benchmarks; none were given"
        )
    return wanted


def _folders(include_path: str | Path | Sequence[str | Path] | None) -> tuple[Path, ...]:
    if include_path is None:
        return ()
    several = [include_path] if isinstance(include_path, (str, Path)) else list(include_path)
    folders = tuple(expanded(each) for each in several)
    for folder in folders:
        if not folder.is_dir():
            missing = errno.ENOTDIR if folder.exists() else errno.ENOENT
            raise ReadError(missing, f"include_path: {folder} is no folder of task definitions")
    return folders


def _resolved(wanted: Sequence[Any], folders: tuple[Path, ...]) -> tuple[Any, list[Any]]:
    """The harness's index, and what is to be loaded from it.

    Reading all of the harness's own definitions takes ten seconds. Where single tasks of the
    user's folders are all that is wanted, these are enough.
    """
    names = [each for each in wanted if isinstance(each, str)]
    if folders or not names:
        manager = _manager(folders, defaults=False)
        if all(name in manager.all_subtasks for name in names):
            return manager, list(wanted)
    manager = _manager(folders, defaults=True)
    known = [name for name in manager.all_tasks if isinstance(name, str)]
    specifications: list[Any] = []
    for each in wanted:
        matching = fnmatch.filter(known, each) if isinstance(each, str) else [each]
        if not matching and not _is_file(each):
            raise broken_definition(each, folders) or _unknown(each, known)
        specifications += (
            more for more in matching or [each] if all(more is not some for some in specifications)
        )
    return manager, specifications


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and expanded(name).is_file()


def _unknown(name: str, known: Sequence[str]) -> ArgumentError:
    return ArgumentError(
        f"the harness knows no task {name!r}{near(name, known)}. For definitions of your "
        "own give include_path (--include-path)"
    )


def _manager(folders: tuple[Path, ...], *, defaults: bool) -> Any:
    if defaults and not folders:
        return _own_tasks()
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders), include_defaults=defaults)


@cache
def _own_tasks() -> Any:
    """The harness's own tasks, which do not change while this process lives."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _raise_missing_data(error: Exception, wanted: Sequence[Any]) -> None:
    """HubError if it was the network that kept tasks from being loaded."""
    said = " ".join(str(error).split())
    if isinstance(error, (ConnectionError, TimeoutError)) or "offline" in said.lower():
        raise HubError(
            f"the data of {', '.join(map(_name, wanted))} cannot be had: {said}. It comes from the "
            "Hub: load it once where there is a network, or define the tasks over local files and "
            "give include_path (--include-path)"
        ) from error


def _loading_error(
    error: Exception, wanted: Sequence[Any], index: Mapping[str, Any]
) -> ArgumentError:
    """What kept tasks from being loaded, in our words, with the file that defines them."""
    names = ", ".join(map(_name, wanted))
    if len(wanted) > 1 or not isinstance(wanted[0], str):
        config = wanted[0] if len(wanted) == 1 and isinstance(wanted[0], Mapping) else {}
        return ArgumentError(f"{names} cannot be loaded: {told(error, config)}")
    path, config = config_of(wanted[0], index)
    where = "" if path is None or str(path) == names else f" ({path})"
    return ArgumentError(f"{names}{where} cannot be loaded: {told(error, config)}")


def _name(task: Any) -> str:
    if isinstance(task, Mapping):
        task = task.get("task", "a configuration without a name")
    return str(task if isinstance(task, str) else getattr(task, "task_name", type(task).__name__))


def _copied(wanted: Any) -> Any:
    """Another object for a task or group of the caller's, with a configuration of its own."""
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task

    if not isinstance(wanted, (Task, Group)):
        return wanted
    own = copy.copy(wanted)
    if isinstance(own, Group):
        own._children = {name: _copied(each) for name, each in own._children.items()}
        return own
    own._config = copy.copy(own._config)
    if hasattr(own, "sampler"):
        own.sampler = copy.copy(own.sampler)
    return own


def _build(name: str, task: Any, num_fewshot: int | None, limit: float | None) -> None:
    """Settle the examples, and build all requests. From then on the harness finds them built."""
    own = task.get_config("num_fewshot")
    if num_fewshot is None:
        if own is None:
            task.set_config(key="num_fewshot", value=0)
    elif own != 0:  # what a task sets to 0 itself stays, as in the harness
        task.set_config(key="num_fewshot", value=num_fewshot)
    if getattr(task, "UNSAFE_CODE", False):
        raise ArgumentError(f"task {name} runs code that the model writes: it is not run here")
    if None in getattr(task, "_aggregation_list", {}).values():
        raise ArgumentError(f"task {name} has a metric with an aggregation that is not known")
    task.set_fewshot_seed(seed=SEEDS["fewshot"])
    from lm_eval.evaluator_utils import get_sample_size

    try:
        task.build_all_requests(limit=get_sample_size(task, limit))
    except Exception as error:
        shots = task.get_config("num_fewshot")
        raise ArgumentError(
            f"the requests of task {name} with num_fewshot={shots} cannot be built: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    task.build_all_requests = _built


def _built(**_: object) -> None:
    """Instead of the harness's method, which it calls again for every model."""
