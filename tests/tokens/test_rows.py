"""Rows as NumPy takes them; ranges of millions cost nothing."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, RowIndexError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.rows import chosen_rows, row_vector

numbers = st.integers(-12, 12)


@given(count=st.integers(0, 10), start=numbers, stop=numbers, step=numbers.filter(bool))
def test_ranges_choose_as_their_numbers_do(count, start, stop, step):
    rows = range(start, stop, step)
    wrong = [row for row in rows if not -count <= row < count]
    if wrong:
        with pytest.raises(RowIndexError, match=f"^row {wrong[0]} of data with {count} rows$"):
            chosen_rows(rows, count)
    else:
        chosen = row_vector(chosen_rows(rows, count))
        assert chosen.dtype == np.int64
        np.testing.assert_array_equal(chosen, np.arange(count)[np.array(rows, dtype=int)])
    every = row_vector(chosen_rows(slice(start, stop, step), count))
    np.testing.assert_array_equal(every, np.arange(count)[start:stop:step])


def test_all_of_them():
    assert chosen_rows(None, 3) == range(3)


@pytest.mark.parametrize("rows", [[1.0], [[1]], ["a"], 3, range])
def test_what_chooses_none(rows):
    with pytest.raises(ArgumentError, match="rows must be"):
        chosen_rows(rows, 3)


def test_millions_of_rows_take_no_memory():
    data = TokenDataset(np.zeros((3_000_000, 1), dtype=np.uint8))
    wanted = data.fingerprint()
    tracemalloc.start()
    try:
        assert data.fingerprint(range(3_000_000)) == wanted
        assert data.fingerprint(slice(None)) == wanted
        data.check_ids(1, range(3_000_000))
        assert data[data.seen(1, batch=100)[-1:]].tolist() == [[0]]
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally:
        tracemalloc.stop()
