"""Rows that are trees of tokens: each sequence's scores are those that it has by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.errors import ArgumentError, TokenRangeError


@pytest.fixture(scope="module", params=["native", "torch"])
def model(tiny_series, request):
    model = pythia_fast.load(tiny_series, 16, dtype="float32")
    if request.param == "torch":
        model.native = None
    return model


def row_of(prefix, tails):
    """[prefix | tail | …]: the ids, the ends, and each tail's places, the prefix's last first."""
    ids, places = list(prefix), []
    T = len(prefix) + sum(map(len, tails))
    ends = [T] * len(prefix)
    for tail in tails:
        places.append([len(prefix) - 1, *range(len(ids), len(ids) + len(tail) - 1)])
        ids += tail
        ends += [len(ids)] * len(tail)
    return ids, ends, places


def check(model, rows):
    """Rows of (prefix, tails), filled up to one length, against each sequence by `score`."""
    made = [row_of(*row) for row in rows]
    T = max(len(ids) for ids, _, _ in made)
    all_ids = [ids + [0] * (T - len(ids)) for ids, _, _ in made]
    all_ends = [
        [T if end == len(ids) else end for end in ends] + list(range(len(ids) + 1, T + 1))
        for ids, ends, _ in made
    ]
    asked, expected, best = [], [], []
    for number, ((prefix, tails), (_, _, places)) in enumerate(zip(rows, made, strict=True)):
        for tail, at in zip(tails, places, strict=True):
            asked += [(number, *one) for one in zip(at, tail, strict=True)]
            alone = model.score([[*prefix, *tail]], start=len(prefix) - 1)
            expected.append(alone.nll[0])
            best.append(alone.argmax[0])
    row_N, place_N, target_N = torch.tensor(asked).T
    found = model.score_at(all_ids, row_N, place_N, target_N, torch.tensor(all_ends))
    torch.testing.assert_close(found.nll, torch.cat(expected), rtol=0, atol=2e-5)
    assert found.argmax.equal(torch.cat(best))


tokens = st.integers(0, 159)
rows = st.tuples(
    st.lists(tokens, min_size=1, max_size=70),
    st.lists(st.lists(tokens, min_size=1, max_size=40), min_size=1, max_size=5),
)


@settings(deadline=None, max_examples=20)
@given(st.lists(rows, min_size=1, max_size=3))
def test_each_sequence_is_as_by_itself(model, rows):
    check(model, rows)


def test_a_row_is_longer_than_any_sequence_and_its_last_positions_are_the_models(model):
    random = torch.Generator().manual_seed(0)
    prefix = torch.randint(0, 160, (100,), generator=random).tolist()
    tails = [torch.randint(0, 160, (28,), generator=random).tolist() for _ in range(6)]
    check(model, [(prefix, tails)])
    ids, ends, _ = row_of(prefix, [*tails, [1] * 29])
    one = torch.tensor([0])
    with pytest.raises(ArgumentError, match="a sequence of 129 tokens, but the model takes 128"):
        model.score_at([ids], one, one, one, torch.tensor([ends]))


def test_rows_that_go_through_in_several_passes(model, monkeypatch):
    monkeypatch.setattr("pythia_fast.model.scoring.PASS_TOKENS", 40)
    monkeypatch.setattr("pythia_fast.model.scoring.NATIVE_PASS_TOKENS", 40)
    check(model, [([i, 2, 3], [[4, i], [5], [6, 7, 8]]) for i in range(9)])


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([[4, 4, 4, 4], [4, 4, 2, 4]], "token 2 of row 1 is seen up to 3 at least and 4 at most"),
        ([[4, 4, 4, 4], [3, 3, 3, 4]], "token 0 of row 1 is seen up to 4 at least"),
        ([[4, 4, 5, 4], [4, 4, 4, 4]], "not up to 5"),
        ([[4, 4, 4, -1], [4, 4, 4, 4]], "not up to -1"),
        ([[4, 4, 4, 4]], r"of shape \(2, 4\)"),
        ([[4.0] * 4] * 2, "torch.int64"),
    ],
)
def test_ends_of_no_tree_are_refused(model, ends, said):
    one = torch.tensor([0])
    with pytest.raises(ArgumentError, match=said):
        model.score_at([[1, 2, 3, 4]] * 2, one, one, one, torch.tensor(ends))


def test_what_holds_for_other_rows_holds_for_trees(model):
    one, ends = torch.tensor([0]), torch.tensor([[3, 2, 3]])
    with pytest.raises(TokenRangeError):
        model.score_at([[1, 500, 2]], one, one, one, ends)
    with pytest.raises(ArgumentError, match="0 to 2"):
        model.score_at([[1, 5, 2]], one, torch.tensor([3]), one, ends)
    with pytest.raises(ArgumentError, match="at least one sequence"):
        model.score_at(torch.zeros(1, 0, dtype=torch.int64), one, one, one, ends[:, :0])
