"""Which rows a step saw, and the reverse: against a table made row by row."""

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, RowIndexError, TruncatedFileError
from pythia_fast.tokens import TokenDataset, position_of, rows_of_step, seen
from pythia_fast.tokens.steps import require_rows, rows_between, whole_steps

BATCH = 4


@given(batch=st.integers(1, 9), steps=st.integers(1, 30))
def test_the_arithmetic_is_that_of_training(batch, steps):
    table = [(step, place) for step in range(1, steps + 1) for place in range(batch)]
    for row, (step, place) in enumerate(table):
        assert position_of(row, batch) == (step, place)
        assert rows_of_step(step, batch)[place] == row
    for step in range(steps + 1):
        assert list(seen(step, batch)) == [row for row, at in enumerate(table) if at[0] <= step]
        for first in range(step + 1):
            between = [row for row, at in enumerate(table) if first < at[0] <= step]
            assert list(rows_between(first, step, batch)) == between
    for rows in range(len(table) + 1):
        assert whole_steps(rows, batch) == sum(
            1 for step in range(1, steps + 1) if rows_of_step(step, batch).stop <= rows
        )


def test_the_suite_by_default():
    assert rows_of_step(1) == range(1024)
    assert rows_of_step(143_000) == range(146_430_976, 146_432_000)
    assert seen(0) == range(0)
    assert seen(143_000) == range(146_432_000)
    assert position_of(146_431_999) == (143_000, 1023)
    assert position_of(np.int64(1024)).step == 2
    assert position_of(1024).position == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: rows_of_step(0), "counted from 1"),
        (lambda: rows_of_step(-1), "counted from 1"),
        (lambda: rows_of_step(1, 0), "at least 1"),
        (lambda: rows_of_step(1.0), "must be an int"),
        (lambda: rows_of_step(True), "must be an int"),
        (lambda: seen(-1), "none is negative"),
        (lambda: rows_between(3, 2), "the earlier comes first"),
        (lambda: position_of(-1), "counted from 0"),
        (lambda: position_of(1, -4), "at least 1"),
    ],
)
def test_what_is_no_step(wrong, words):
    with pytest.raises(ArgumentError, match=words):
        wrong()


def test_rows_that_are_not_there_are_told_in_steps():
    assert require_rows(range(4, 8), 8, 4, "it") == range(4, 8)
    assert require_rows(range(9, 9), 8, 4, "nothing") == range(9, 9)
    with pytest.raises(
        RowIndexError, match=r"rows 8 to 11, but the data has 8: 2 whole steps of 4"
    ):
        require_rows(range(8, 12), 8, 4, "it")
    with pytest.raises(RowIndexError, match="2 whole steps of 4 rows, and 3 rows of step 3"):
        require_rows(range(8, 12), 11, 4, "it")


@pytest.fixture
def ids():
    return np.random.default_rng(5).integers(0, 60_000, (23, 6)).astype(np.uint16)


@pytest.fixture
def data(ids, token_files, tmp_path):
    return TokenDataset(token_files(tmp_path / "data", ids))


def test_a_step_of_data(data, ids):
    for step in range(1, 6):
        batch = data.step(step, batch=BATCH)
        assert batch.dtype == np.int64
        np.testing.assert_array_equal(batch, ids[BATCH * (step - 1) : BATCH * step])
    part = data.step(2, batch=BATCH, columns=slice(1, 3), dtype=np.uint16)
    assert part.dtype == np.uint16
    np.testing.assert_array_equal(part, ids[4:8, 1:3])
    with pytest.raises(RowIndexError, match="5 whole steps of 4 rows, and 3 rows of step 6"):
        data.step(6, batch=BATCH)
    with pytest.raises(RowIndexError, match="training step 1 means rows 0 to 1,023"):
        data.step(1)
    with pytest.raises(ArgumentError, match="counted from 1"):
        data.step(0, batch=BATCH)


def test_what_a_checkpoint_has_seen(data, ids):
    assert data.seen(0, batch=BATCH) == range(0)
    rows = data.seen(5, batch=BATCH)
    assert rows == range(20)
    np.testing.assert_array_equal(data[rows], ids[:20])
    np.testing.assert_array_equal(data[rows[::-3]], ids[:20][::-3])
    assert data.fingerprint(rows) == TokenDataset(ids[:20]).fingerprint()
    with pytest.raises(RowIndexError, match="what step 6 has seen"):
        data.seen(6, batch=BATCH)


class TestBatches:
    @pytest.mark.parametrize("prefetch", [0, 1, 2, 7])
    def test_they_are_the_steps_in_the_order_asked_for(self, data, ids, prefetch):
        for steps in (range(1, 6), [5, 1, 1, 3], [], range(4, 0, -2), (s for s in (2, 3))):
            wanted = list(steps) if not hasattr(steps, "send") else [2, 3]
            got = list(data.batches(steps, batch=BATCH, prefetch=prefetch))
            assert [step for step, _ in got] == wanted
            for step, batch in got:
                np.testing.assert_array_equal(batch, ids[BATCH * (step - 1) : BATCH * step])

    def test_columns_and_dtype(self, data, ids):
        ((_, batch),) = data.batches([2], batch=BATCH, columns=slice(2, 5), dtype=np.int32)
        assert batch.dtype == np.int32
        np.testing.assert_array_equal(batch, ids[4:8, 2:5])

    def test_each_array_is_the_callers_own(self, data, ids):
        kept = []
        for _, batch in data.batches(range(1, 6), batch=BATCH):
            kept.append(batch.copy())
            batch[:] = -1
        np.testing.assert_array_equal(np.concatenate(kept), ids[:20])

    def test_what_is_wrong_is_told_before_the_first(self, data):
        with pytest.raises(RowIndexError, match="training step 6"):
            data.batches(range(1, 7), batch=BATCH)
        with pytest.raises(ArgumentError, match="counted from 1"):
            data.batches(range(3), batch=BATCH)
        with pytest.raises(ArgumentError, match="ids are gathered as"):
            data.batches([1], dtype=np.float32)
        with pytest.raises(ArgumentError, match="prefetch"):
            data.batches([1], prefetch=-1)
        with pytest.raises(ArgumentError, match="at least 1"):
            data.batches([1], batch=0)

    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_an_error_comes_in_its_place_and_ends_it(self, data, prefetch):
        batches = data.batches([1, 2, 99, 3], batch=BATCH, prefetch=prefetch)
        assert [next(batches)[0], next(batches)[0]] == [1, 2]
        with pytest.raises(RowIndexError, match="training step 99"):
            next(batches)
        assert list(batches) == []
        assert threads() == []

    def test_a_file_that_shrinks_is_an_error_of_the_consumer(self, tmp_path, token_files, ids):
        prefix = token_files(tmp_path / "shrinking", ids)
        data = TokenDataset(prefix)
        batches = data.batches(range(1, 6), batch=BATCH, prefetch=1)
        next(batches)
        with Path(f"{prefix}.bin").open("r+b") as file:
            file.truncate(10)
        with pytest.raises(TruncatedFileError):
            list(batches)

    def test_at_most_so_many_are_ahead(self, data, monkeypatch):
        alive = []
        gather = TokenDataset.gather
        most = []

        def counted(self, rows, **options):
            batch = gather(self, rows, **options)
            if len(batch):
                alive.append(weakref.ref(batch))
                most.append(sum(each() is not None for each in alive))
            return batch

        monkeypatch.setattr(TokenDataset, "gather", counted)
        for _ in data.batches([1, 2, 3, 4, 5] * 8, batch=BATCH, prefetch=2):
            pass
        assert len(most) == 40
        assert (
            max(most) <= 4
        )  # two ahead, the consumer's, and the loop's last until it has the next

    def test_no_thread_is_left(self, data):
        assert threads() == []
        unused = data.batches(range(1, 6), batch=BATCH)
        assert threads() == []  # none before the first is asked for
        del unused
        for _ in data.batches(range(1, 6), batch=BATCH):
            assert len(threads()) == 1
            break
        assert threads() == []
        batches = data.batches(range(1, 6), batch=BATCH)
        next(batches)
        batches.close()
        assert threads() == []
        assert list(batches) == []

        def interrupted():
            for _ in data.batches(range(1, 6), batch=BATCH):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert threads() == []

    def test_one_in_a_cycle_is_collected(self, data):
        batches = data.batches(range(1, 6), batch=BATCH)
        cycle = [batches]
        cycle.append(cycle)
        next(batches)
        del batches, cycle
        gc.collect()
        assert threads() == []


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("pythia-fast-batches")]
