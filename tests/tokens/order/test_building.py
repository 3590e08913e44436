"""The training order against NumPy's own shuffles and a greedy loop over documents."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.core import Cutter, LegacyRandom
from pythia_fast.errors import ArgumentError, OrderError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.order import building
from pythia_fast.tokens.order.building import PYTHIA_SAMPLES, build, epochs_needed


def greedy_rows(lengths, documents, sequence_length, samples):
    """Where samples begin, by filling each in turn; the last token of one begins the next."""
    position, offset = 0, 0
    rows = [(position, offset)]
    for _ in range(samples):
        wanted = sequence_length + 1
        while True:
            there = int(lengths[documents[position]]) - offset
            if there >= wanted:
                offset += wanted - 1
                break
            wanted -= there
            position, offset = position + 1, 0
        rows.append((position, offset))
    return np.array(rows, dtype=np.int64)


def numpy_order(lengths, seed, sequence_length, samples):
    lengths = np.asarray(lengths, dtype=np.int64)
    tokens = int(lengths.sum())
    epochs = next(n for n in range(1, 10**6) if (n * tokens - 1) // sequence_length >= samples)
    count = (epochs * tokens - 1) // sequence_length
    random = np.random.RandomState(seed)
    documents = np.tile(np.arange(len(lengths), dtype=np.int32), epochs)
    random.shuffle(documents)
    shuffled = np.arange(count, dtype=np.uint32)
    random.shuffle(shuffled)
    return documents, count, shuffled


def assert_same(order, documents, rows, shuffled):
    for found, expected in (
        (order.doc_idx, documents),
        (order.sample_idx, rows),
        (order.shuffle_idx, shuffled),
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


some_tokens = st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any)


@given(
    lengths=some_tokens,
    seed=st.integers(0, 2**32 - 1),
    sequence_length=st.integers(1, 40),
    samples=st.integers(1, 60),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([np.int32, np.int64, np.uint16]),
)
def test_an_order_is_numpys_shuffles_around_a_greedy_loop(
    lengths, seed, sequence_length, samples, threads, dtype
):
    documents, count, shuffled = numpy_order(lengths, seed, sequence_length, samples)
    order = build(
        np.array(lengths, dtype=dtype),
        seed=seed,
        sequence_length=sequence_length,
        samples=samples,
        threads=threads,
    )
    assert_same(order, documents, greedy_rows(lengths, documents, sequence_length, count), shuffled)
    assert len(order) == count >= samples == order.samples
    assert order.nbytes == 4 * len(documents) + 20 * count + 16
    order.check(lengths, threads=threads)
    order.check(threads=threads)


def test_a_sample_that_ends_with_a_document_leaves_its_last_token_to_the_next():
    order = build([5, 0, 5], seed=1234, sequence_length=4, samples=2)
    assert set(map(tuple, order.sample_idx[1:].tolist())) <= {(p, 4) for p in range(3)} | {
        (p, 3) for p in range(3)
    }
    first_full = next(p for p in range(3) if order.doc_idx[p] != 1)
    assert order.sample_idx.tolist()[:2] == [[0, 0], [first_full, 4]]


def test_the_first_row_is_the_first_document_even_without_a_token():
    lengths = np.zeros(50, dtype=np.int64)
    lengths[7] = 9
    order = build(lengths, sequence_length=2, samples=4)
    place = int((order.doc_idx == 7).argmax())
    assert place > 0
    assert order.sample_idx.tolist() == [[0, 0], *([place, 2 * k] for k in range(1, 5))]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_documents_cross_every_boundary_of_the_work(threads, monkeypatch):
    """Blocks, rounds and pieces, and what is done at a time, against a search in running sums."""
    monkeypatch.setattr(building, "BLOCK_SHUFFLED", 123_457)
    monkeypatch.setattr(building, "BLOCK_DOCUMENTS", 300_007)
    random = np.random.default_rng(3)
    lengths = random.integers(0, 60, 350_000, dtype=np.int32)
    lengths[:20] = 5_000_000  # samples by the hundred thousand within one document
    order = build(lengths, seed=99, sequence_length=64, samples=2_500_000, threads=threads)

    documents, count, shuffled = numpy_order(lengths, 99, 64, 2_500_000)
    ends = np.cumsum(lengths[documents], dtype=np.int64)
    tokens = np.arange(1, count + 1, dtype=np.int64) * 64
    positions = np.searchsorted(ends, tokens, side="right")
    offsets = tokens - (ends - lengths[documents])[positions]
    rows = np.concatenate([[[0, 0]], np.stack([positions, offsets], axis=1)])
    assert len(documents) == 2 * len(lengths)
    assert_same(order, documents, rows, shuffled)
    order.check(lengths, threads=threads)


@pytest.mark.parametrize("documents", [3, 40])
def test_more_tokens_than_32_bits_count(documents):
    lengths = np.full(documents, 2**31 - 1, dtype=np.int32)
    order = build(lengths, sequence_length=2**20, samples=5000)
    expected, count, shuffled = numpy_order(lengths, 1234, 2**20, 5000)
    assert count * 2**20 > 2**32
    assert_same(order, expected, greedy_rows(lengths, expected, 2**20, count), shuffled)


def test_documents_longer_than_32_bits_count():
    lengths = [2**40, 0, 3, 2**33 + 5]
    order = build(lengths, sequence_length=2**30, samples=1500)
    expected, count, shuffled = numpy_order(lengths, 1234, 2**30, 1500)
    rows = greedy_rows(lengths, expected, 2**30, count)
    assert rows[:, 1].max() > 2**32
    assert_same(order, expected, rows, shuffled)
    order.check(lengths)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("count", [1, 2, 3, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_shuffle_is_numpys_in_one_call_or_in_several(dtype, count, threads):
    expected = np.arange(count, dtype=dtype)
    whole, parts = expected.copy(), expected.copy()
    random = np.random.RandomState(5)
    random.shuffle(expected)
    after = random.randint(0, 2**32, dtype=np.uint64)

    ours = LegacyRandom(5)
    ours.shuffle(whole, 0, count, threads)
    again = LegacyRandom(5)
    for end in range(count, 0, -40_000):
        again.shuffle(parts, max(0, end - 40_000), end, threads)
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(parts, expected)
    for each in (ours, again):  # no number more was taken than numpy takes
        assert one_number(each, 2**32 - 1) == after


def one_number(random, bound):
    out = np.empty(1, dtype=np.uint64)
    random.draw(bound, out)
    return int(out[0])


@pytest.mark.parametrize(
    "first",
    [
        *(1, 2, 1000, 2**31, 2**31 + 400),
        *(2**32 - 1, 2**32 + 400),  # the latter falls from two words a number to one
        *(2**33 + 200, 2**40 + 3, 2**62 - 1, 2**63 - 2),
    ],
)
@pytest.mark.parametrize("seed", [0, 1234, 2**32 - 1])
def test_numbers_below_falling_bounds_are_numpys(first, seed):
    count = min(first, 1500)
    out = np.empty(count, dtype=np.uint64)
    LegacyRandom(seed).draw(first, out)
    random = np.random.RandomState(seed)
    expected = [random.randint(0, first - k + 1, dtype=np.int64) for k in range(count)]
    assert out.tolist() == expected


def test_the_real_size_needs_the_epochs_that_pythia_had():
    standard, deduped = 332_115_325_534, 207_000_000_000
    assert epochs_needed(standard, 2048, PYTHIA_SAMPLES) == 1
    assert epochs_needed(deduped, 2048, PYTHIA_SAMPLES) == 2
    assert PYTHIA_SAMPLES == -(-143_000 * 1024 * 1005 // 1000)


@given(
    tokens=st.integers(1, 10**6), sequence_length=st.integers(1, 3000), samples=st.integers(1, 999)
)
def test_epochs_are_the_fewest_that_suffice(tokens, sequence_length, samples):
    epochs = epochs_needed(tokens, sequence_length, samples)
    assert (epochs * tokens - 1) // sequence_length >= samples
    assert epochs == 1 or ((epochs - 1) * tokens - 1) // sequence_length < samples


def test_a_data_set_and_its_path_give_the_order_of_its_rows(token_files, tmp_path):
    rows = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9]]
    prefix = token_files(tmp_path / "raw", rows)
    expected = build([3, 0, 1, 5], sequence_length=2, samples=10)
    for data in (prefix, str(prefix) + ".idx", TokenDataset(prefix)):
        order = build(data, sequence_length=2, samples=10)
        assert_same(order, expected.doc_idx, expected.sample_idx, expected.shuffle_idx)
        order.check(data)


@pytest.mark.parametrize(
    ("lengths", "options", "words"),
    [
        ([], {}, "without a single token"),
        ([0, 0], {}, "without a single token"),
        ([[1]], {}, "vector"),
        ([1.5], {}, "vector"),
        ([2**63], {}, "9223372036854775808 tokens"),
        ([4], {"samples": 2**40}, "ask for fewer samples"),
        ([4], {"samples": 0}, "samples"),
        ([4], {"sequence_length": 0}, "sequence_length"),
        ([4], {"sequence_length": 2**31}, "sequence_length"),
        ([4], {"seed": 2**32, "samples": 1}, "seed"),
        ([4], {"seed": -1, "samples": 1}, "seed"),
        ([4], {"threads": 0, "samples": 1}, "threads"),
        ([2**62], {"samples": 2**53, "sequence_length": 2**20}, "2^63"),
    ],
)
def test_what_has_no_order_is_refused(lengths, options, words):
    array = np.array(lengths, dtype=np.uint64 if lengths == [2**63] else None)
    with pytest.raises(ArgumentError, match=words.replace("^", r"\^")):
        build(array, **options)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [([4, -2, -3], "document 1 has -2 tokens"), ([2**62, 2**62], r"there are 2\^63 or more")],
)
def test_lengths_that_cannot_be_are_refused(lengths, words):
    with pytest.raises(OrderError, match=words):
        build(lengths)


def test_a_cutter_looks_at_the_documents_again():
    """The lengths may lie in a file that is written to, and doc_idx may come from one."""
    lengths = np.array([4, 4], dtype=np.int32)
    rows = np.empty((3, 2), dtype=np.int64)
    for documents, words in (([0, 2], "doc_idx.1. is document 2 of 2"), ([-1, 0], "document -1")):
        cutter = Cutter(lengths, np.array(documents, dtype=np.int32), 2)
        with pytest.raises(OrderError, match=words):
            cutter.write(rows, 10, 1)
    cutter = Cutter(lengths, np.array([0, 1], dtype=np.int32), 2)
    lengths[1] = -4
    with pytest.raises(OrderError, match="document 1 has -4 tokens"):
        cutter.write(rows, 10, 2)


def test_an_order_is_shown_and_survives_a_pickle():
    small = build([7, 0, 30, 4, 1, 9], sequence_length=8, samples=20)
    assert repr(small) == (
        f"Order({len(small)} samples of 8 + 1 tokens, seed 1234, {len(small.doc_idx)} documents)"
    )
    copy = pickle.loads(pickle.dumps(small))
    assert_same(copy, small.doc_idx, small.sample_idx, small.shuffle_idx)
    assert (copy.sequence_length, copy.seed, copy.samples) == (8, 1234, 20)
