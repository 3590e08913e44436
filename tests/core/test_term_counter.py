"""TermCounter against a plain count: one position after the other, one term after the other."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import TermCounter
from pythia_fast.errors import ArgumentError

BITS = st.integers(0, 3)
DTYPES = (np.uint16, np.int32, np.int64)


def counter(terms, left=None, right=None, begins=(), ends=()):
    sides = [np.zeros(len(terms), np.uint8) if each is None else each for each in (left, right)]
    return TermCounter(
        np.array([each for term in terms for each in term], np.int64),
        np.cumsum([0, *map(len, terms)], dtype=np.int64),
        *(np.array(each, np.uint8) for each in (*sides, begins, ends)),
    )


def plain_count(rows, terms, left, right, begins, ends):
    def bits(of, each):
        return of[each] if 0 <= each < len(of) else 0

    counts = [0] * len(terms)
    for row in rows:
        for number, term in enumerate(terms):
            for start in range(len(row) - len(term) + 1):
                stop = start + len(term)
                if list(row[start:stop]) != list(term):
                    continue
                before = start > 0 and bits(ends, row[start - 1]) & left[number]
                behind = stop < len(row) and bits(begins, row[stop]) & right[number]
                counts[number] += not before and not behind
    return counts


@st.composite
def cases(draw):
    ids = st.integers(0, draw(st.sampled_from([2, 4, 130])))
    terms = draw(
        st.lists(st.lists(ids, min_size=1, max_size=4).map(tuple), unique=True, max_size=6)
    )
    rows = draw(st.lists(st.lists(ids, max_size=12), max_size=6))
    sides = [draw(st.lists(BITS, min_size=len(terms), max_size=len(terms))) for _ in range(2)]
    kinds = [draw(st.lists(BITS, max_size=5)) for _ in range(2)]
    return rows, terms, *sides, *kinds


@settings(max_examples=300, deadline=None)
@given(case=cases(), dtype=st.sampled_from(DTYPES), threads=st.integers(1, 4))
def test_as_a_plain_count(case, dtype, threads):
    rows, terms, *rest = case
    width = max(map(len, rows), default=0)
    # The padding is full of what the terms are made of: it must not be looked at.
    ids = np.full((len(rows), width), terms[0][0] if terms else 0, dtype)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    counts = np.full(len(terms), 5, np.int64)
    lengths = np.array(list(map(len, rows)), np.int64)
    counter(terms, *rest).count(ids, lengths, counts, threads)
    assert (counts - 5).tolist() == plain_count(rows, terms, *rest)


def test_many_pieces_and_threads_give_what_one_does():
    random = np.random.default_rng(3)
    ids = random.integers(0, 40, (300, 1000)).astype(np.uint16)
    lengths = random.integers(0, 1001, 300)
    terms = [(1,), (1, 2), (1, 2, 1), (39,), (2, 2)]
    chosen = counter(terms, left=[0, 1, 1, 1, 0], right=[1, 1, 0, 1, 0], begins=[0, 1], ends=[1])
    found = []
    for threads in (1, 2, 5):
        counts = np.zeros(len(terms), np.int64)
        chosen.count(ids, lengths, counts, threads)
        found.append(counts.tolist())
    assert found[0] == found[1] == found[2]
    row_ids = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    assert found[0] == plain_count(row_ids, terms, [0, 1, 1, 1, 0], [1, 1, 0, 1, 0], [0, 1], [1])


def test_one_counter_for_several_threads_of_python():
    ids = np.tile(np.arange(8, dtype=np.int32), (64, 512))
    lengths = np.full(64, ids.shape[1])
    chosen = counter([(3, 4), (7, 0)])
    results = [np.zeros(2, np.int64) for _ in range(4)]
    workers = [
        threading.Thread(target=chosen.count, args=(ids, lengths, counts, 2)) for counts in results
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [counts.tolist() for counts in results] == [[64 * 512, 64 * 511]] * 4


def test_ids_that_no_term_has_and_negative_ones():
    ids = np.array([[-1, 5, 2**31 - 1, 5, -(2**31)]], np.int32)
    counts = np.zeros(1, np.int64)
    counter([(5,)], left=[255], right=[255], begins=[255], ends=[255]).count(
        ids, np.array([5]), counts, 1
    )
    assert counts.tolist() == [2]


def test_no_terms_no_rows():
    counts = np.zeros(0, np.int64)
    nothing = counter([])
    assert len(nothing) == 0
    nothing.count(np.zeros((2, 3), np.int64), np.array([3, 3]), counts, 1)
    one = counter([(1,)])
    counts = np.zeros(1, np.int64)
    one.count(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), counts, 1)
    one.count(np.zeros((2, 0), np.int64), np.zeros(2, np.int64), counts, 1)
    assert counts.tolist() == [0]


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([(1,), ()], "term 1 has no id"),
        ([(1, 2), (3,), (1, 2)], "terms 0 and 2 are the same"),
        ([(-1,)], "-1, which is no token id"),
        ([(1 << 24,)], "no token id"),
    ],
)
def test_terms_that_are_none(terms, words):
    with pytest.raises(ArgumentError, match=words):
        counter(terms)


def test_arguments_that_do_not_fit():
    vector, bits = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    with pytest.raises(ArgumentError, match="outside its ids"):
        TermCounter(vector, np.array([0, 2]), bits, bits, bits, bits)
    with pytest.raises(ArgumentError, match="outside its ids"):
        TermCounter(vector, np.array([-1, 1]), bits, bits, bits, bits)
    with pytest.raises(ArgumentError, match="have 2 bounds, not 3"):
        TermCounter(vector, np.array([0, 1, 1]), bits, bits, bits, bits)
    with pytest.raises(ArgumentError, match="vector of uint8"):
        TermCounter(vector, np.array([0, 1]), vector, bits, bits, bits)
    with pytest.raises(ArgumentError, match="left has 1 terms, right 2"):
        TermCounter(vector, np.array([0, 1]), bits, np.zeros(2, np.uint8), bits, bits)
    one = counter([(1,)])
    ids, lengths, counts = np.zeros((2, 3), np.int64), np.array([3, 3]), np.zeros(1, np.int64)
    for bad, words in (
        ((ids[0], lengths, counts, 1), "a matrix"),
        ((ids.astype(np.float32), lengths, counts, 1), "must hold integers"),
        ((ids.astype(np.int16), lengths, counts, 1), "int64, int32 or uint16"),
        ((ids[:, ::2], lengths, counts, 1), "ids"),
        ((ids, lengths[:1], counts, 1), "2 rows have as many lengths, not 1"),
        ((ids, np.array([3, 4]), counts, 1), "a row of 4 ids in a matrix of 3"),
        ((ids, np.array([3, -1]), counts, 1), "a row of -1 ids"),
        ((ids, lengths, np.zeros(2, np.int64), 1), "1 terms have as many counts, not 2"),
        ((ids, lengths, np.zeros(1, np.int32), 1), "vector of int64"),
        ((ids, lengths, counts, 0), "at least 1"),
    ):
        with pytest.raises(ArgumentError, match=words):
            one.count(*bad)
    counts.flags.writeable = False
    with pytest.raises(ArgumentError, match="counts"):
        one.count(ids, lengths, counts, 1)
