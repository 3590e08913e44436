"""A user's function of each training step's batch, in several processes."""

import contextlib
import functools
import math
import pickle
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pythia_fast.errors import ArgumentError
from pythia_fast.named import load, shown, told
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens.dataset import TokenDataset, TokenSource
from pythia_fast.tokens.passes.processes import Died, in_processes
from pythia_fast.tokens.steps import require_rows, rows_of_step

OWN_KEYS = (
    "step",
    "rows",
    "source",
    "function",
)  # what a line of `step_lines` has besides the values

StepFunction: TypeAlias = Callable[[npt.NDArray[np.int64]], Mapping[str, Any]]
"""From a batch [batch, L] int64, shorter rows padded right with 0, to names and JSON's values."""


@dataclass(frozen=True, slots=True)
class StepValues:
    """What the function returned for a step, as plain JSON; or None, and the error in words."""

    step: int
    values: dict[str, Any] | None
    error: str | None


def map_steps(
    source: TokenDataset | TokenSource,
    function: StepFunction | str,
    steps: Sequence[int],
    *,
    batch: int = SEQUENCES_PER_STEP,
    workers: int = 1,
) -> Generator[StepValues, None, None]:
    """Call `function`, or what "module:function" names, on each step's batch, in order.

    With more than one worker these are processes, in which `source` is opened and the function
    imported anew. An error of the function, or a process that dies, costs that step alone. What it
    prints goes to standard error. Of its values, numpy's become Python's and arrays lists, and
    numbers that JSON lacks (NaN, infinity) None; anything else that is not JSON is an error.
    ArgumentError for a function that is none or cannot be taken to another process; RowIndexError
    for steps that the data does not have; WorkerError where a process cannot begin.
    """
    if workers < 1:
        raise ArgumentError(f"workers are the processes at work, at least 1: got {workers}")
    work = _open(source, function, batch)
    for step in {min(steps), max(steps)} if steps else ():
        rows = rows_of_step(step, batch)
        require_rows(rows, len(work.dataset), batch, f"training step {step}")
    if workers == 1 or not steps:
        return _here(work, steps)
    make = functools.partial(_open, source, function, batch)
    try:
        pickle.dumps(make)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            f"{name_of(function)} on {work.dataset.source} cannot be taken to other processes "
            f"({error}): give a function of a module and the path of the data, or one worker"
        ) from error
    return _there(make, steps, min(workers, len(steps)))


def load_function(name: str) -> StepFunction:
    """What "module:function" or "file.py:function" names. ArgumentError if there is none."""
    found: Any = load(name, "function")
    if not callable(found):
        raise ArgumentError(f"{name!r} is of type {type(found).__name__}, not a function")
    result: StepFunction = found
    return result


def name_of(function: StepFunction | str) -> str:
    """`function` as module:function."""
    if isinstance(function, str):
        return function
    kind = type(function)
    module = getattr(function, "__module__", kind.__module__)
    return f"{shown(str(module))}:{getattr(function, '__qualname__', kind.__qualname__)}"


@dataclass(frozen=True, slots=True)
class _Work:
    dataset: TokenDataset
    function: StepFunction
    batch: int

    def __call__(self, step: int) -> StepValues:
        try:
            ids_BL = self.dataset.gather(rows_of_step(step, self.batch), threads=1)
            with contextlib.redirect_stdout(sys.stderr):
                returned = self.function(ids_BL)
            if not isinstance(returned, Mapping):
                raise TypeError(
                    f"it returned a value of type {type(returned).__name__}, not a dict"
                )
            values: dict[str, Any] = _plain(returned, "its result")
            for name in OWN_KEYS:
                if name in values:
                    raise ValueError(f"its result has the key {name!r}, which is told anyhow")
            return StepValues(step, values, None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a user's function does: sys.exit() too
            return StepValues(step, None, told(error, __file__))


def _open(source: TokenDataset | TokenSource, function: StepFunction | str, batch: int) -> _Work:
    dataset = source if isinstance(source, TokenDataset) else TokenDataset(source)
    return _Work(dataset, load_function(function) if isinstance(function, str) else function, batch)


def _here(work: _Work, steps: Sequence[int]) -> Generator[StepValues, None, None]:
    for step in steps:
        yield work(step)


def _there(
    make: Callable[[], _Work], steps: Sequence[int], workers: int
) -> Generator[StepValues, None, None]:
    for step, result in in_processes(make, steps, workers):
        if isinstance(result, Died):
            yield StepValues(step, None, f"its process died ({result.how})")
        else:
            yield result


def _plain(value: Any, where: str) -> Any:
    """`value` as json takes it. TypeError names the place of what is no JSON."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int, np.integer)):
                raise TypeError(f"{where} has the key {key!r}, which is no string")
        return {str(key): _plain(each, f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{where}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "tolist"):
        python = value.tolist()
        if type(python) is not type(value):
            return _plain(python, where)
    elif isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    elif value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{where} is of type {type(value).__name__}, which JSON does not have")
