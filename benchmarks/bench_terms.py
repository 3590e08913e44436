"""How often numbers occur in a training step's rows: the C++ count against NumPy's ways."""

from typing import Any

import numpy as np
import pytest
from comparison import Comparison
from roofline import Work

from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.passes.edges import DIGIT, LETTER, OTHER, SPACE, Edges
from pythia_fast.tokens.passes.terms import RULES, Terms, count_terms

ROWS, COLUMNS, VOCABULARY, NUMBERS = 1024, 2049, 50_277, 100
WORK = Work(bytes=ROWS * COLUMNS * 2)  # uint16 read
JOINED = RULES["spaced"]
SHARE = 0.02  # of the tokens that are numbers, as in text


@pytest.fixture(scope="module")
def ids_NL() -> np.ndarray[Any, Any]:
    """Ids of which some are the forms of numbers: the first 200."""
    random = np.random.default_rng(0)
    ids = random.integers(2 * NUMBERS, VOCABULARY, (ROWS, COLUMNS), dtype=np.uint16)
    numbers = random.integers(0, 2 * NUMBERS, ids.shape, dtype=np.uint16)
    return np.where(random.random(ids.shape) < SHARE, numbers, ids)


@pytest.fixture(scope="module")
def edges() -> Edges:
    """Half of the tokens begin with a space, and the first form of each number too."""
    random = np.random.default_rng(1)
    begins = random.choice([SPACE, LETTER, DIGIT, OTHER], VOCABULARY, p=[0.5, 0.3, 0.05, 0.15])
    ends = random.choice([LETTER, DIGIT, OTHER], VOCABULARY, p=[0.8, 0.1, 0.1])
    begins[:NUMBERS], begins[NUMBERS : 2 * NUMBERS] = SPACE, DIGIT
    ends[: 2 * NUMBERS] = DIGIT
    return Edges(begins.astype(np.uint8), ends.astype(np.uint8))


def test_one_token_each(
    benchmark: Any, comparison: Comparison, ids_NL: np.ndarray[Any, Any], edges: Edges
) -> None:
    """The forms of the numbers 0 to 99 are single tokens, as Pythia's tokenizer has them."""
    forms = tuple((form,) for form in range(2 * NUMBERS))
    terms = _terms(forms, edges)
    dataset = TokenDataset(ids_NL)
    after, before = (edges.ends & JOINED).astype(bool), (edges.begins & JOINED).astype(bool)

    def allowed() -> np.ndarray[Any, Any]:
        free = np.ones(ids_NL.shape, bool)
        free[:, :-1] &= ~before[ids_NL[:, 1:]]
        unspaced = ids_NL >= NUMBERS
        free[:, 1:] &= ~(after[ids_NL[:, :-1]] & unspaced[:, 1:])
        return free

    def bincount() -> np.ndarray[Any, Any]:
        counts = np.bincount(ids_NL[allowed()], minlength=VOCABULARY)
        return counts[:NUMBERS] + counts[NUMBERS : 2 * NUMBERS]

    def each_form() -> np.ndarray[Any, Any]:
        found = ids_NL[allowed()]
        counts = np.array([np.count_nonzero(found == form) for form in range(2 * NUMBERS)])
        return counts[:NUMBERS] + counts[NUMBERS:]

    def ours() -> np.ndarray[Any, Any]:
        return count_terms(dataset, terms, [1], batch=ROWS).counts_SK[0]

    for peer in (bincount, each_form):
        np.testing.assert_array_equal(ours(), peer())
    comparison.run(
        benchmark,
        f"{NUMBERS} numbers of one token in {ROWS} rows of {COLUMNS} uint16",
        ours,
        {"numpy.bincount": bincount, "NumPy, one comparison for each form": each_form},
        rounds=20,
        cache="in memory",
        work=WORK,
    )


def test_several_tokens_each(
    benchmark: Any, comparison: Comparison, ids_NL: np.ndarray[Any, Any], edges: Edges
) -> None:
    """Terms of two tokens, wherever they stand: what larger numbers and phrases are."""
    random = np.random.default_rng(2)
    pairs = np.unique(random.integers(0, 2 * NUMBERS, (4 * NUMBERS, 2)), axis=0)
    chosen = random.permutation(len(pairs))[: 2 * NUMBERS]
    forms = tuple((int(a), int(b)) for a, b in pairs[chosen])
    terms = _terms(forms, edges, rule="anywhere")
    dataset = TokenDataset(ids_NL)
    codes = np.array([a << 16 | b for a, b in forms])

    def each_form() -> np.ndarray[Any, Any]:
        first, second = ids_NL[:, :-1], ids_NL[:, 1:]
        counts = np.array([np.count_nonzero((first == a) & (second == b)) for a, b in forms])
        return counts[:NUMBERS] + counts[NUMBERS:]

    def unique() -> np.ndarray[Any, Any]:
        joined = ids_NL[:, :-1].astype(np.int64) << 16 | ids_NL[:, 1:]
        found, counts = np.unique(joined[np.isin(joined, codes)], return_counts=True)
        known = dict(zip(found.tolist(), counts.tolist(), strict=True))
        every = np.array([known.get(code, 0) for code in codes.tolist()])
        return every[:NUMBERS] + every[NUMBERS:]

    def ours() -> np.ndarray[Any, Any]:
        return count_terms(dataset, terms, [1], batch=ROWS).counts_SK[0]

    for peer in (each_form, unique):
        np.testing.assert_array_equal(ours(), peer())
    comparison.run(
        benchmark,
        f"{NUMBERS} terms of two tokens in {ROWS} rows of {COLUMNS} uint16",
        ours,
        {"NumPy, comparisons for each form": each_form, "numpy.isin and numpy.unique": unique},
        rounds=5,
        cache="in memory",
        work=WORK,
    )


def _terms(forms: tuple[tuple[int, ...], ...], edges: Edges, rule: str = "spaced") -> Terms:
    """Form i and form i + 100 are those of one number."""
    term_of = tuple(number % NUMBERS for number in range(len(forms)))
    return Terms(tuple(map(str, range(NUMBERS))), forms, term_of, rule, edges)
