"""The harness without its noise, and with the user's process left as it was."""

import logging
import random
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from pythia_fast.evaluation.bootstrap import bootstrap_stderr
from pythia_fast.extras import require
from pythia_fast.progress import Bar

LOGGERS = ("lm_eval", "datasets", "huggingface_hub", "evaluate")
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The harness's own defaults, from which its results depend."""

_INSIDE = threading.RLock()


@contextmanager
def quiet_harness() -> Iterator[None]:
    """While this lasts the harness logs, warns and draws no bars, and its seeds are set.

    Loggers' levels, filters of warnings and states of random numbers are put back at the end.
    Standard errors come from a bootstrap in this process, instead of forks of it that print.

    All this belongs to the process and not to a thread: while one thread is inside, others wait
    before the door. Evaluations in several threads therefore take turns, step by step.
    """
    require("lm_eval")
    import datasets
    import lm_eval.api.metrics
    import lm_eval.api.task

    with _INSIDE, ExitStack() as stack:
        stack.enter_context(_loggers(LOGGERS))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_replaced(lm_eval.api.task, "tqdm", _no_bar))
        stack.enter_context(_replaced(lm_eval.api.metrics, "bootstrap_stderr", bootstrap_stderr))
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        stack.enter_context(_seeds())
        yield


@contextmanager
def documents_counted(what: str, bar: Bar) -> Iterator[None]:
    """Inside `quiet_harness`: whose requests the harness builds meanwhile is counted in `bar`."""
    import lm_eval.api.task

    def counted(
        documents: Iterable[Any], *_: object, total: int | None = None, **__: object
    ) -> Iterator[Any]:
        bar.begin(what, "documents", total)
        for document in documents:
            yield document
            bar.advance()

    with _replaced(lm_eval.api.task, "tqdm", counted):
        yield


@contextmanager
def _loggers(names: Sequence[str]) -> Iterator[None]:
    """Only what is critical is logged by these and those below them."""
    below = [
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith(tuple(f"{each}." for each in names))
        and isinstance(logger, logging.Logger)
        and logger.level != logging.NOTSET
    ]
    levels = {name: logging.getLogger(name).level for name in (*names, *below)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _seeds() -> Iterator[None]:
    """The harness's seeds, also for tasks that draw by the global generators."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    torch.default_generator.manual_seed(SEEDS["torch"])
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


@contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _no_bar(items: Iterable[Any] = (), *_: object, **__: object) -> Iterable[Any]:
    return items
