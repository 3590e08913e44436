"""What is wrong with an order is found, and named, whatever the number of threads."""

import numpy as np
import pytest

from pythia_fast.errors import OrderError
from pythia_fast.tokens.order.building import Order, build


def changed(order, **arrays):
    kept = {name: getattr(order, name).copy() for name in ("doc_idx", "sample_idx", "shuffle_idx")}
    return Order(
        **(kept | arrays),
        sequence_length=order.sequence_length,
        seed=order.seed,
        samples=order.samples,
    )


LENGTHS = [7, 0, 30, 4, 1, 9, 25, 25, 16, 3]


@pytest.fixture
def small():
    return build(LENGTHS, sequence_length=8, samples=20)


@pytest.mark.parametrize(
    ("name", "place", "value", "without_data", "with_data"),
    [
        ("shuffle_idx", 3, 99, "shuffle_idx.3. is 99 of", None),
        ("shuffle_idx", 3, "shuffle_idx[1]", "no permutation: shuffle_idx.3.", None),
        ("doc_idx", 2, 10, None, "document 10 of 10"),
        ("doc_idx", 2, -1, "document -1 of 10", None),
        ("doc_idx", 2, 2**31 - 1, "no multiple of 2147483648", "of 10"),
        ("sample_idx", (0, 1), 1, "not .0, 0.", "must be .0, 0."),
        ("sample_idx", (4, 0), 10**6, "doc_idx has 20 positions", "must be"),
        ("sample_idx", (4, 0), -1, "doc_idx has 20 positions", "must be"),
        ("sample_idx", (4, 0), 9, "sample_idx.[45].", "sample_idx.4."),
        ("sample_idx", (4, 1), -1, "before the document's first token", "must be"),
        ("sample_idx", (4, 1), 10**6, "sample_idx", "must be"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_check_finds_what_is_wrong(small, name, place, value, without_data, with_data, threads):
    array = getattr(small, name).copy()
    array[place] = small.shuffle_idx[1] if isinstance(value, str) else value
    damaged = changed(small, **{name: array})
    if without_data is not None:
        with pytest.raises(OrderError, match=without_data):
            damaged.check(threads=threads)
    with pytest.raises(OrderError, match=with_data or without_data):
        damaged.check(LENGTHS, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_thing_that_is_wrong_is_named_whatever_the_threads(threads):
    count = 200_000
    order = build(np.full(count, 3), sequence_length=3, samples=count - 1)
    values = order.shuffle_idx.copy()
    values[[90_000, 150_000]] = values[[89_999, 0]]
    with pytest.raises(OrderError, match=r"shuffle_idx\[90000\]"):
        changed(order, shuffle_idx=values).check(threads=threads)
    documents = order.doc_idx.copy()
    documents[[90_000, 150_000]] = documents[[89_999, 0]]
    with pytest.raises(OrderError, match=r"doc_idx\[90000\]"):
        changed(order, doc_idx=documents).check(threads=threads)


def test_documents_are_counted_over_few_epochs_and_many():
    for samples in (3, 300):
        order = build([2, 3, 4], sequence_length=3, samples=samples)
        order.check()
        documents = order.doc_idx.copy()
        documents[int((documents == 0).argmax())] = 2
        with pytest.raises(OrderError, match="document 2, which was there"):
            changed(order, doc_idx=documents).check()


def test_an_order_of_other_data_is_refused(small):
    for lengths in ([*LENGTHS, 1], LENGTHS[:-1], [*LENGTHS[:-1], 200]):
        with pytest.raises(OrderError, match=r"does not belong|no multiple"):
            small.check(lengths)
    same_size = LENGTHS[::-1]
    with pytest.raises(OrderError, match="by the documents' lengths"):
        small.check(same_size)


def test_int32_rows_as_v1_has_them_are_an_order_too(small):
    changed(small, sample_idx=small.sample_idx.astype(np.int32)).check(LENGTHS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"doc_idx": np.zeros(10, np.int64)}, "doc_idx must be int32"),
        ({"doc_idx": np.zeros(0, np.int32)}, "0 documents"),
        ({"sample_idx": np.zeros((27, 2), np.uint32)}, "sample_idx must be int64 or int32"),
        ({"sample_idx": np.zeros(54, np.int64)}, "2 dimension"),
        ({"sample_idx": np.zeros((5, 2), np.int64)}, "rows of 2"),
        ({"shuffle_idx": np.zeros(26, np.float32)}, "shuffle_idx must be uint32 or int64"),
        (
            {"shuffle_idx": np.zeros(4, np.uint32), "sample_idx": np.zeros((5, 2), np.int64)},
            "20 were asked for",
        ),
    ],
)
def test_arrays_that_do_not_fit_together_are_no_order(small, arrays, words):
    with pytest.raises(OrderError, match=words):
        changed(small, **arrays)
