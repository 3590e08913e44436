import logging
import random
import sys
import threading
import warnings

import datasets
import lm_eval.api.metrics
import lm_eval.api.task
import numpy as np
import pytest
import torch

from pythia_fast.evaluation.quiet import quiet_harness


def test_the_process_is_left_as_it_was():
    loud = logging.getLogger("lm_eval.api.task")
    loud.setLevel(logging.DEBUG)
    names = ("lm_eval", "lm_eval.api.task", "datasets", "huggingface_hub")
    random.seed(5), np.random.seed(5), torch.manual_seed(5)

    def state():
        return (
            [logging.getLogger(name).level for name in names],
            list(warnings.filters),
            lm_eval.api.task.tqdm,
            lm_eval.api.metrics.bootstrap_stderr,
            datasets.are_progress_bars_disabled(),
            random.getstate(),
            str(np.random.get_state()),
            torch.random.get_rng_state().tolist(),
        )

    before = state()

    def use_it_and_fail():
        with quiet_harness():
            assert state() != before
            random.random(), np.random.random(), torch.rand(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_it_and_fail()
    assert state() == before
    loud.setLevel(logging.NOTSET)


def test_nothing_is_said(capsys):
    with quiet_harness():
        logging.getLogger("lm_eval.tasks").error("loud")
        logging.getLogger("datasets.builder").error("loud")
        warnings.warn("loud", stacklevel=1)
        assert list(lm_eval.api.task.tqdm([1, 2], total=2)) == [1, 2]
        sys.stdout.flush()
    told = capsys.readouterr()
    assert told.out == told.err == ""


def test_it_draws_as_the_harness_does():
    with quiet_harness():
        found = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(0), np.random.seed(1234), torch.manual_seed(1234)
    assert found == (random.random(), np.random.random(), float(torch.rand(1)))


def test_threads_take_turns():
    """Else the one that leaves first would put back what the other still replaces, and so on."""
    before = lm_eval.api.metrics.bootstrap_stderr, logging.getLogger("lm_eval").level
    inside, leave, entered = threading.Event(), threading.Event(), []

    def first():
        with quiet_harness():
            inside.set()
            leave.wait(60)
            entered.append("first leaves")

    def second():
        with quiet_harness():
            entered.append("second enters")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    threads[1].join(0.2)
    assert entered == []
    leave.set()
    for thread in threads:
        thread.join(60)
    assert entered == ["first leaves", "second enters"]
    assert before == (lm_eval.api.metrics.bootstrap_stderr, logging.getLogger("lm_eval").level)
