"""Continuations against a plain forward pass of each request by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.evaluation import likelihood
from pythia_fast.evaluation.likelihood import Continuations, continuations
from pythia_fast.model import Model


@pytest.fixture(scope="module")
def model(tiny_series) -> Model:
    return pythia_fast.load(tiny_series, 16, dtype="float32")


def plain(model: Model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """By the whole logits of one sequence, in float64."""
    whole = (context + continuation)[-model.architecture.max_positions - 1 :]
    logits_TV = model(torch.tensor([whole[:-1]]))[0].double()
    targets = torch.tensor(continuation)
    logits_NV = logits_TV[-len(continuation) :]
    likelihood = -torch.nn.functional.cross_entropy(logits_NV, targets, reduction="sum")
    return float(likelihood), bool((logits_NV.argmax(-1) == targets).all())


ids = st.integers(0, 159)
pairs = st.tuples(st.lists(ids, min_size=1, max_size=140), st.lists(ids, min_size=1, max_size=20))


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(pairs, min_size=1, max_size=12), batch_tokens=st.integers(1, 900))
def test_each_is_as_by_itself(model, requests, batch_tokens):
    shared = [(context, [*continuation[:-1], last]) for context, continuation in requests[:3]
              for last in (5, 9)]  # fmt: skip
    found, greedy = continuations(model, [*requests, *shared], batch_tokens=batch_tokens)
    expected = [plain(model, list(c), list(d)) for c, d in [*requests, *shared]]
    np.testing.assert_allclose(found, [value for value, _ in expected], atol=1e-4)
    assert greedy.tolist() == [flag for _, flag in expected]


def test_greedy_continuations_are_told(model):
    prompt = [3, 1, 4, 1, 5]
    best = model.generate([prompt], 6)[0].tolist()[5:]
    _, greedy = continuations(model, [(prompt, best), (prompt, [*best[:-1], (best[-1] + 1) % 160])])
    assert greedy.tolist() == [True, False]


def test_the_same_but_for_the_last_token_is_computed_once(model):
    requests = [([7, 8, 9], [answer]) for answer in range(4)] + [([7, 8], [9, 11])]
    prepared = Continuations(requests, 128)
    assert prepared.tokens == 3
    found, _ = prepared.of(model)
    expected = [plain(model, c, d)[0] for c, d in requests]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_is_bounded(monkeypatch):
    monkeypatch.setattr(likelihood, "SMALL_BATCH", 64)
    random = np.random.default_rng(0)
    requests = [(random.integers(0, 9, n).tolist(), [1]) for n in random.integers(1, 100, 300)]
    prepared = Continuations(requests, 128)
    batches = list(prepared._cut(512))
    for batch in batches:
        area = batch.ids_BT.numel()
        assert area <= 512
        assert area <= 64 or area - batch.tokens <= likelihood.PADDING_SHARE * area
    assert sum(batch.tokens for batch in batches) == prepared.tokens


def test_where_memory_ends_batches_are_halved(model, monkeypatch):
    requests = [([i, i + 1], [i + 2, 3]) for i in range(16)]
    expected = continuations(model, requests)
    ask, refused = model.score_at, []

    def narrow(ids_BT, *at):
        if len(ids_BT) > 4:
            refused.append(len(ids_BT))
            raise torch.OutOfMemoryError("too much")
        return ask(ids_BT, *at)

    monkeypatch.setattr(model, "score_at", narrow)
    found = continuations(model, requests)
    assert refused == [16, 8, 8]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    assert (found[1] == expected[1]).all()


def test_no_requests(model):
    found, greedy = continuations(model, [])
    assert len(found) == len(greedy) == 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (([], [1]), "a context without tokens"),
        (([1], []), "a continuation without tokens"),
        (([1], [1] * 129), "a continuation of 129 tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(model, request_, said):
    with pytest.raises(ArgumentError, match=said):
        continuations(model, [([1], [2]), request_])


def test_an_id_outside_the_embedding(model):
    with pytest.raises(TokenRangeError):
        continuations(model, [([1, 500], [2])])
    with pytest.raises(ArgumentError, match="0 to 159"):
        continuations(model, [([1, 5], [200])])


def test_score_at_is_score(model):
    ids_BT = torch.randint(0, 160, (5, 40))
    whole = model.score(ids_BT)
    row_N, position_N = torch.tensor([4, 0, 2, 2]), torch.tensor([3, 38, 0, 17])
    found = model.score_at(ids_BT, row_N, position_N, ids_BT[row_N, position_N + 1])
    torch.testing.assert_close(found.nll, whole.nll[row_N, position_N], atol=1e-5, rtol=0)
    assert (found.argmax == whole.argmax[row_N, position_N]).all()


def test_torch_answers_as_the_kernels_do(model, monkeypatch):
    requests = [([i, 3, 5], [i + 2, 7, 9]) for i in range(70)]
    expected = continuations(model, requests)
    monkeypatch.setattr(model, "native", None)
    found = continuations(model, requests)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    assert (found[1] == expected[1]).all()


@st.composite
def related(draw):
    """Requests that share much: contexts that go on from each other, several answers to each."""
    texts = [draw(st.lists(ids, min_size=1, max_size=60))]
    for _ in range(draw(st.integers(0, 5))):
        before = draw(st.sampled_from(texts))
        kept = draw(st.integers(1, len(before)))
        texts.append(before[:kept] + draw(st.lists(ids, max_size=60)))
    answers = st.lists(st.lists(ids, min_size=1, max_size=12), min_size=1, max_size=4)
    return [(text, answer) for text in texts for answer in draw(answers)]


@settings(max_examples=30, deadline=None)
@given(requests=related(), batch_tokens=st.sampled_from((1, 100, 4096)))
def test_requests_that_share_are_as_by_themselves(model, requests, batch_tokens):
    prepared = Continuations(requests, 128)
    done: list[int] = []
    found, greedy = prepared.of(model, batch_tokens=batch_tokens, advance=done.append)
    expected = [plain(model, list(c), list(d)) for c, d in requests]
    np.testing.assert_allclose(found, [value for value, _ in expected], atol=1e-4)
    assert greedy.tolist() == [flag for _, flag in expected]
    assert sum(done) == prepared.tokens


def test_a_question_is_read_once():
    context = list(range(100))
    requests = [(context, [answer, 7, 8]) for answer in range(5)] + [(context, [3]), ([9], [9, 9])]
    prepared = Continuations(requests, 128)
    assert prepared.tokens == 100 + 5 * 2 + 2
    (batch,) = prepared._cut(4096)
    assert batch.ids_BT.shape == (2, 110)
    assert len(batch.target_N) == 5 * 3 + 2  # [3] is asked for with [3, 7, 8]
    assert batch.request_M.tolist().count(5) == 1


def test_what_questions_share_is_read_once():
    examples = list(range(100))
    questions = [[*examples, 150 - n, *range(20, 40)] for n in range(4)]
    requests = [(question, [answer, 1]) for question in questions for answer in range(4)]
    assert Continuations(requests, 200).tokens == 100 + 4 * 21 + 4 * 4


def test_the_beginning_of_two_sentences_is_read_once(model):
    pair = [([0], [4, 5, 6, 7, 8, 9]), ([0], [4, 5, 6, 3, 8, 9])]
    prepared = Continuations(pair, 128)
    assert prepared.tokens == 4 + 2 + 2
    (batch,) = prepared._cut(4096)
    assert len(batch.target_N) == 3 + 3 + 3
    np.testing.assert_allclose(prepared.of(model)[0], [plain(model, *one)[0] for one in pair],
                               atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("batch_tokens", [64, 100, 150, 4096])
def test_more_than_a_row_holds_takes_several(model, batch_tokens):
    context = np.random.default_rng(0).integers(0, 160, 60).tolist()
    requests = [(context, [answer, 150, 3]) for answer in range(160)]
    prepared = Continuations(requests, 128)
    rows = list(prepared._rows(batch_tokens))
    assert len(rows) == -(-160 // ((min(batch_tokens, 256) - 60) // 2))
    assert all(row.ids[:60] == context for row in rows)
    for batch in prepared._cut(batch_tokens):
        assert batch.ids_BT.numel() <= batch_tokens
    found, _ = prepared.of(model, batch_tokens=batch_tokens)
    np.testing.assert_allclose(found, [plain(model, *one)[0] for one in requests], atol=1e-4)


def test_the_longest_sequences_share_up_to_the_last_position(model):
    context = np.random.default_rng(1).integers(0, 160, 100).tolist()
    requests = [(context, [n] * 29) for n in range(5)]
    prepared = Continuations(requests, 128)
    assert prepared.tokens == 100 + 5 * 28
    found, _ = prepared.of(model)
    np.testing.assert_allclose(found, [plain(model, *one)[0] for one in requests], atol=1e-4)


def test_what_shares_little_stays_apart(model, monkeypatch):
    requests = [([1, 2, *range(10 * n, 10 * n + 9)], [5]) for n in range(8)]
    prepared = Continuations(requests, 128)
    assert prepared.tokens == 8 * 11
    (batch,) = prepared._cut(4096)
    assert batch.end_BT is None


def test_where_memory_ends_rows_of_many_sequences_are_halved_too(model, monkeypatch):
    requests = [([i, 2, 3, 4], [answer, 9]) for i in range(8) for answer in (3, 5)]
    requests += [([3, 2, 3, 4], [5])]
    expected = continuations(model, requests)
    ask = model.score_at

    def narrow(ids_BT, *at):
        if len(ids_BT) > 2:
            raise torch.OutOfMemoryError("too much")
        return ask(ids_BT, *at)

    monkeypatch.setattr(model, "score_at", narrow)
    done: list[int] = []
    prepared = Continuations(requests, 128)
    found = prepared.of(model, advance=done.append)
    assert sum(done) == prepared.tokens
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    assert (found[1] == expected[1]).all()


def test_torch_answers_as_the_kernels_do_where_requests_share(model, monkeypatch):
    requests = [([i, *range(30)], [i + 2, 7, n]) for i in range(12) for n in range(3)]
    requests += [([i, *range(30), n], [8, n]) for i in range(12) for n in range(3)]
    expected = continuations(model, requests)
    monkeypatch.setattr(model, "native", None)
    found = continuations(model, requests)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    assert (found[1] == expected[1]).all()


def test_padding_has_no_position_beyond_the_last(model):
    """The last sequence of a short row is as long as may be, beside a longer row."""
    long, other = list(range(100)) + [1] * 28, list(range(30, 130))
    requests = [([*long[:100], *[last] * 28], [3]) for last in (1, 2, 4)]
    requests += [([*other, *[last] * 28], [3]) for last in (1, 2)]
    found, _ = continuations(model, requests)
    expected = [plain(model, c, d)[0] for c, d in requests]
    np.testing.assert_allclose(found, expected, atol=1e-4)
