"""A user's function of each batch: what comes of its values, its errors and its processes."""

import functools
import itertools
import multiprocessing
import sys

import numpy as np
import pytest
import torch

from pythia_fast.errors import ArgumentError, MissingTokensError, RowIndexError, WorkerError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.passes.map_steps import load_function, map_steps, name_of

MODULE = """
import os, signal, sys

import numpy as np

not_callable = 3

def total(ids):
    return {"sum": ids.sum(), "shape": ids.shape, "dtype": str(ids.dtype)}

def picky(ids):
    if ids[0, 0] == 8:
        raise ValueError("not this one")
    return {"first": ids[0, 0]}

def mortal(ids):
    if ids[0, 0] == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    if ids[0, 0] == 16:
        os._exit(7)
    return {"first": ids[0, 0], "pid": os.getpid()}

def exits(ids):
    if ids[0, 0] == 8:
        sys.exit("enough")
    return {"first": ids[0, 0]}

def interrupts(ids):
    raise KeyboardInterrupt

def talkative(ids):
    print("hello from", ids[0, 0])
    return {}

class Counter:
    @staticmethod
    def count(ids):
        return {"n": ids.size}

class Instance:
    def __call__(self, ids):
        return {"n": 1}

instance = Instance()
"""

numbers = itertools.count()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name of a module of the user's, new for each test."""
    name = f"mine_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def data(tmp_path, token_files):
    """Six steps of four rows; the first id of each is its row's number."""
    ids = np.arange(26 * 3, dtype=np.uint16).reshape(26, 3)
    ids[:, 0] = np.arange(26)
    return token_files(tmp_path / "data", ids)


def run(data, function, steps=range(1, 7), **options):
    return list(map_steps(data, function, steps, batch=4, **options))


@pytest.mark.parametrize("workers", [1, 2])
def test_values_come_in_the_order_of_steps(data, mine, workers):
    ids = TokenDataset(data)[:]
    for steps in (range(1, 7), [5, 2, 2], []):
        results = run(data, f"{mine}:total", steps, workers=workers)
        assert [each.step for each in results] == list(steps)
        for each in results:
            assert each.error is None
            batch = ids[4 * each.step - 4 : 4 * each.step]
            assert each.values == {"sum": batch.sum(), "shape": [4, 3], "dtype": "int64"}
            assert type(each.values["sum"]) is int


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_costs_its_step_only(data, mine, workers):
    results = run(data, f"{mine}:picky", workers=workers)
    assert [each.values for each in results] == [
        {"first": 4 * step} if step != 2 else None for step in range(6)
    ]
    error = results[2].error
    assert error.startswith("ValueError: not this one (")
    assert error.endswith(f"{mine}.py:13)")


@pytest.mark.parametrize("workers", [1, 2])
def test_sys_exit_costs_its_step_only(data, mine, workers):
    results = run(data, f"{mine}:exits", workers=workers)
    assert [each.values and each.values["first"] for each in results] == [0, 4, None, 12, 16, 20]
    assert results[2].error.startswith("SystemExit: enough (")


def test_ctrl_c_in_a_function_is_ctrl_c(data, mine):
    with pytest.raises(KeyboardInterrupt):
        run(data, f"{mine}:interrupts")


def test_a_process_that_dies_costs_its_step_only(data, mine):
    results = run(data, f"{mine}:mortal", workers=2)
    assert [each.values and each.values["first"] for each in results] == [0, 4, None, 12, None, 20]
    assert results[2].error == "its process died (killed by SIGKILL)"
    assert results[4].error == "its process died (exit code 7)"
    assert multiprocessing.active_children() == []


def test_one_that_is_given_up_leaves_no_process(data, mine):
    results = map_steps(data, f"{mine}:total", range(1, 7), batch=4, workers=2)
    assert next(results).step == 1
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_it_prints_is_not_on_standard_output(data, mine, workers, capfd):
    assert run(data, f"{mine}:talkative", [3], workers=workers)[0].values == {}
    found = capfd.readouterr()
    assert found.out == ""
    assert found.err == "hello from 8\n"


@pytest.mark.parametrize(
    ("returned", "plain"),
    [
        ({"a": np.float32(0.5), "b": np.bool_(True), "c": np.str_("x")}, None),
        ({"a": np.arange(6).reshape(2, 3)}, {"a": [[0, 1, 2], [3, 4, 5]]}),
        ({"a": torch.tensor([1, 2]), "b": torch.tensor(3)}, {"a": [1, 2], "b": 3}),
        ({"a": {7: (1, None, {"b": [np.int8(2)]})}}, {"a": {"7": [1, None, {"b": [2]}]}}),
        ({"a": [float("nan"), np.inf, np.array([np.nan])]}, {"a": [None, None, [None]]}),
        ({np.int64(5): np.float64(1.5), "big": 2**70}, {"5": 1.5, "big": 2**70}),
    ],
)
def test_values_become_json(data, returned, plain):
    (result,) = run(data, lambda _: returned, [1])
    assert result.error is None
    assert result.values == (plain or {"a": 0.5, "b": True, "c": "x"})


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1], "it returned a value of type list, not a dict"),
        (None, "it returned a value of type NoneType, not a dict"),
        ({"a": {"b": [1, 2j]}}, r"its result\['a'\]\['b'\]\[1\] is of type complex, which JSON"),
        ({"a": np.array([2j])}, "of type complex"),
        ({"a": np.longdouble(1)}, "of type longdouble"),
        ({"a": object()}, "of type object"),
        ({"a": {1, 2}}, "of type set"),
        ({(1, 2): 3}, "the key"),
        ({"step": 3}, "has the key 'step'"),
        ({"rows": 3}, "has the key 'rows'"),
    ],
)
def test_what_is_no_json_is_an_error_of_the_step(data, returned, words):
    (result,) = run(data, lambda _: returned, [1])
    assert result.values is None
    assert pytest.raises(AssertionError, match=words).matches(AssertionError(result.error))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine", "give module:function"),
        (":total", "give module:function"),
        ("MINE:", "give module:function"),
        ("no_such_module:total", "no module 'no_such_module'"),
        ("no_such.module:total", "'no_such.module' cannot be imported|no module"),
        ("MINE:missing", "has no 'missing'"),
        ("MINE:Counter.missing", "has no 'Counter.missing'"),
        ("MINE:not_callable", "is of type int, not a function"),
    ],
)
def test_names_that_name_no_function(data, mine, name, words):
    with pytest.raises(ArgumentError, match=words):
        run(data, name.replace("MINE", mine))


def test_a_module_that_cannot_be_imported(data, tmp_path, mine):
    (tmp_path / f"{mine}_bad.py").write_text("import math\n1 / 0\n")
    with pytest.raises(ArgumentError, match=rf"ZeroDivisionError.*{mine}_bad\.py:2"):
        load_function(f"{mine}_bad:f")
    (tmp_path / f"{mine}_exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ArgumentError, match="cannot be imported: SystemExit: 3"):
        load_function(f"{mine}_exits:f")
    (tmp_path / f"{mine}_needs.py").write_text("import no_such_module\n")
    with pytest.raises(ArgumentError, match="cannot be imported: ModuleNotFoundError"):
        load_function(f"{mine}_needs:f")


def test_functions_have_names(mine):
    module = pytest.importorskip(mine)
    assert name_of("a:b") == "a:b"
    assert name_of(module.Counter.count) == f"{mine}:Counter.count"
    assert name_of(module.instance) == f"{mine}:Instance"
    assert load_function(f"{mine}:Counter.count") is module.Counter.count
    assert load_function(f"{mine}:instance") is module.instance


def test_what_cannot_go_to_another_process(data):
    with pytest.raises(ArgumentError, match="cannot be taken to other processes"):
        run(data, lambda _: {}, workers=2)


def test_an_open_dataset_and_an_array_will_do(data):
    dataset = TokenDataset(data)
    for source in (dataset, dataset[:]):
        assert [each.values for each in run(source, lambda ids: {"n": ids[0, 0]}, [1, 2])] == [
            {"n": 0},
            {"n": 4},
        ]


def test_bad_arguments(data, mine):
    for steps in (range(1, 8), [1, 9]):
        with pytest.raises(RowIndexError, match="6 whole steps of 4 rows, and 2 rows of step 7"):
            run(data, f"{mine}:total", steps)
    with pytest.raises(ArgumentError, match="counted from 1"):
        run(data, f"{mine}:total", range(3))
    with pytest.raises(ArgumentError, match="at least 1"):
        run(data, f"{mine}:total", workers=0)
    with pytest.raises(MissingTokensError):
        run("/nowhere/data", f"{mine}:total")


class TestProcesses:
    """What only a process can do wrong."""

    def test_one_that_cannot_begin(self, data, mine, tmp_path):
        from pythia_fast.tokens.passes.processes import in_processes

        with pytest.raises(ArgumentError, match="no module"):  # the package's own error arrives
            list(in_processes(functools.partial(load_function, "no_such_module:f"), [1], 2))
        with pytest.raises(WorkerError, match="could not begin: ValueError"):
            list(in_processes(functools.partial(int, "x"), [1], 2))
        with pytest.raises(WorkerError, match=r"ended \(exit code 3\) before it began"):
            list(in_processes(functools.partial(sys.exit, 3), [1], 2))
        assert multiprocessing.active_children() == []

    def test_many_items_in_few_processes(self):
        from pythia_fast.tokens.passes.processes import in_processes

        results = list(in_processes(functools.partial(getattr, abs, "__call__"), range(-50, 50), 2))
        assert results == [(item, abs(item)) for item in range(-50, 50)]

    def test_items_are_taken_as_there_is_room(self):
        from pythia_fast.tokens.passes.processes import AHEAD, in_processes

        taken = []
        items = (taken.append(item) or item for item in range(100))
        results = in_processes(functools.partial(getattr, abs, "__call__"), items, 1)
        for done in range(1, 30):
            assert next(results) == (done - 1, done - 1)
            assert len(taken) <= done + AHEAD
        results.close()
