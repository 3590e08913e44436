"""Flags and scores against what transformers' own generate() does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.panels import LANES
from pythia_fast.metrics import Batch, Memorization, MemorizationScore
from pythia_fast.model import Model

PROMPT = CONTINUATION = 32


def peer(series: Path, step: int) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM.from_pretrained(series / f"step{step}", dtype=torch.float32).eval()


def greedy(model: GPTNeoXForCausalLM, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """What free-running greedy decoding says, one sequence at a time."""
    rows = [
        model.generate(
            row[None],
            attention_mask=torch.ones_like(row[None]),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )[0, len(row) :]
        for row in prompt
    ]
    return torch.stack(rows)


@pytest.fixture(scope="module")
def mixed(tiny_series: Path, tiny_ids: np.ndarray) -> torch.Tensor:
    """For step 16: 12 memorized sequences, 8 that go wrong somewhere, 4 that are random."""
    ids = torch.from_numpy(tiny_ids).clone()
    ids[:20, PROMPT : PROMPT + CONTINUATION] = greedy(
        peer(tiny_series, 16), ids[:20, :PROMPT], CONTINUATION
    )
    for row, position in zip(range(12, 20), (0, 1, 3, 4, 5, 16, 30, 31), strict=True):
        ids[row, PROMPT + position] = (ids[row, PROMPT + position] + 1) % 160
    return ids


def batch_of(ids: torch.Tensor) -> Batch:
    return Batch(ids, torch.full((len(ids),), ids.shape[1]), np.arange(len(ids)))


def oracle(
    series: Path, ids: torch.Tensor, prompt: int = PROMPT, continuation: int = CONTINUATION
) -> np.ndarray:
    """Scores by definition: the share of positions at which generation agrees."""
    decoded = greedy(peer(series, 16), ids[:, :prompt], continuation)
    right = decoded == ids[:, prompt : prompt + continuation]
    return right.double().mean(1).numpy()


@pytest.fixture(scope="module")
def model(tiny_series: Path) -> Model:
    return pythia_fast.load(tiny_series, 16)


def test_the_set_holds_all_kinds(tiny_series: Path, mixed: torch.Tensor) -> None:
    scores = oracle(tiny_series, mixed)
    assert (scores == 1).sum() == 12
    assert ((scores > 0.1) & (scores < 1)).sum() >= 4
    assert (scores < 0.1).sum() >= 4


def test_flags_equal_those_of_generate(
    model: Model, tiny_series: Path, mixed: torch.Tensor
) -> None:
    columns = Memorization()(model, batch_of(mixed))
    np.testing.assert_array_equal(columns["memorized"], oracle(tiny_series, mixed) == 1)


def test_scores_equal_those_of_generate(
    model: Model, tiny_series: Path, mixed: torch.Tensor
) -> None:
    columns = MemorizationScore()(model, batch_of(mixed))
    expected = oracle(tiny_series, mixed)
    np.testing.assert_array_equal(columns["score"], expected)
    np.testing.assert_array_equal(columns["memorized"], expected == 1)


@pytest.mark.parametrize(("prompt", "continuation"), [(1, 1), (5, 3), (8, 40), (48, 16)])
def test_other_lengths(
    model: Model, tiny_series: Path, mixed: torch.Tensor, prompt: int, continuation: int
) -> None:
    ids = mixed.clone()
    ids[:6, prompt : prompt + continuation] = greedy(
        peer(tiny_series, 16), ids[:6, :prompt], continuation
    )
    expected = oracle(tiny_series, ids, prompt, continuation)
    lengths = {"prompt": prompt, "continuation": continuation}
    flags = Memorization(**lengths)(model, batch_of(ids))["memorized"]
    scores = MemorizationScore(**lengths)(model, batch_of(ids))["score"]
    np.testing.assert_array_equal(flags, expected == 1)
    np.testing.assert_array_equal(scores, expected)
    assert flags[:6].all()


def test_first_mismatch_is_the_same_by_both_ways(model: Model, mixed: torch.Tensor) -> None:
    flags = Memorization()(model, batch_of(mixed))
    scores = MemorizationScore()(model, batch_of(mixed))
    assert flags["first_mismatch"].to_pylist() == scores["first_mismatch"].to_pylist()
    expected = [None] * 12 + [0, 1, 3, 4, 5, 16, 30, 31]
    assert flags["first_mismatch"].to_pylist()[:20] == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_flags_do_not_depend_on_the_dtype(
    tiny_series: Path, mixed: torch.Tensor, model: Model, dtype: str
) -> None:
    half = pythia_fast.load(tiny_series, 16, dtype=dtype)
    exact = Memorization()(model, batch_of(mixed))
    rough = Memorization()(half, batch_of(mixed))
    np.testing.assert_array_equal(rough["memorized"], exact["memorized"])
    assert rough["redecided"].any()
    scores = MemorizationScore()(half, batch_of(mixed))["score"]
    np.testing.assert_array_equal(scores, MemorizationScore()(model, batch_of(mixed))["score"])


def test_flags_do_not_depend_on_the_batch(model: Model, mixed: torch.Tensor) -> None:
    together = Memorization()(model, batch_of(mixed))["memorized"]
    alone = [Memorization()(model, batch_of(row[None]))["memorized"][0] for row in mixed]
    np.testing.assert_array_equal(together, alone)


def test_scores_depend_neither_on_the_batch_nor_on_its_parts(
    tiny_series: Path, mixed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Natively to the last bit."""
    model = pythia_fast.load(tiny_series, 16, dtype="bfloat16")
    together = MemorizationScore()(model, batch_of(mixed))
    monkeypatch.setattr("pythia_fast.metrics.memorization.sequences_at_once", lambda *_: 7)
    in_parts = MemorizationScore()(model, batch_of(mixed))
    alone = [MemorizationScore()(model, batch_of(row[None])) for row in mixed]
    for name in ("score", "margin", "redecided"):
        np.testing.assert_array_equal(in_parts[name], together[name])
        np.testing.assert_array_equal([columns[name][0] for columns in alone], together[name])


def test_near_ties_of_all_steps_are_decided_in_few_passes(
    tiny_series: Path, mixed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pythia_fast.load(tiny_series, 16, dtype="bfloat16")
    decide, asked = Model.decide, []

    def counted(
        self: Model, ids_BT: torch.Tensor, start: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(ids_BT))
        return decide(self, ids_BT, start)

    monkeypatch.setattr(Model, "decide", counted)
    redecided = MemorizationScore()(model, batch_of(mixed))["redecided"]
    assert len(mixed) // 2 < asked[0] <= np.sum(redecided)
    assert len(asked) <= CONTINUATION // 4
    assert asked == sorted(asked, reverse=True)


def test_a_tie_is_decided_again(tiny_series: Path, mixed: torch.Tensor) -> None:
    """With two equal rows of the unembedding every arg max among them is an exact tie."""
    model = pythia_fast.load(tiny_series, 16)
    ids = mixed[:12].clone()
    tied = int(ids[0, PROMPT + 7])
    other = (tied + 1) % 160
    model.weights.unembed_VD[other] = model.weights.unembed_VD[tied]
    columns = Memorization()(model, batch_of(ids))
    assert columns["redecided"][0]
    assert columns["margin"][0] == 0


@pytest.mark.parametrize("prompt", [1, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("continuation", [1, 2, 16, 17, 40])
def test_looks_fill_the_kernels_panels(prompt: int, continuation: int) -> None:
    """The tokens that decide each but the last are whole panels of sixteen; the last is all."""
    looks = Memorization(prompt, continuation)._looks()
    assert looks == sorted(set(looks))
    assert looks[-1] == continuation
    assert all((prompt + look - 1) % LANES == 0 for look in looks[:-1])
    assert looks[0] <= min(16, continuation)


def test_flags_do_not_depend_on_the_looks(
    model: Model, mixed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_looks = Memorization()(model, batch_of(mixed))
    monkeypatch.setattr(Memorization, "_looks", lambda self: [self.continuation])
    at_once = Memorization()(model, batch_of(mixed))
    np.testing.assert_array_equal(at_once["memorized"], by_looks["memorized"])
    assert at_once["first_mismatch"].equals(by_looks["first_mismatch"])


def test_sequences_of_another_length_are_cut(model: Model, mixed: torch.Tensor) -> None:
    longer = Memorization()(model, batch_of(mixed))
    shorter = Memorization()(model, batch_of(mixed[:, : PROMPT + CONTINUATION]))
    np.testing.assert_array_equal(longer["memorized"], shorter["memorized"])


def test_nan_weights_are_counted_not_memorized(tiny_series: Path, mixed: torch.Tensor) -> None:
    model = pythia_fast.load(tiny_series, 16)
    model.weights.flat.fill_(float("nan"))
    for metric in (Memorization(), MemorizationScore()):
        columns = metric(model, batch_of(mixed))
        assert not columns["memorized"].any()
        assert (columns["nonfinite"] > 0).all()


def test_token_0_is_not_memorized_by_nan_weights(tiny_series: Path) -> None:
    """The arg max of NaN is id 0, which texts of Pythia are full of."""
    model = pythia_fast.load(tiny_series, 16)
    model.weights.flat.fill_(float("nan"))
    zeros = torch.zeros(3, PROMPT + CONTINUATION, dtype=torch.int64)
    for metric in (Memorization(), MemorizationScore()):
        columns = metric(model, batch_of(zeros))
        assert not columns["memorized"].any()
        assert not np.asarray(columns.get("score", 0)).any()


@pytest.mark.parametrize("lengths", [{"prompt": "32"}, {"prompt": 32.0}, {"continuation": None}])
def test_lengths_are_ints(lengths: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="an int"):
        Memorization(**lengths)


def test_lengths_may_be_numpys() -> None:
    metric = Memorization(prompt=np.int64(8))
    assert metric == Memorization(prompt=8)
    assert type(metric.prompt) is int


@pytest.mark.parametrize("lengths", [{"prompt": 0}, {"continuation": 0}, {"prompt": -1}])
def test_lengths_are_checked(lengths: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="at least one token"):
        Memorization(**lengths)
