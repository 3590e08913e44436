"""Perplexity against a float64 softmax over transformers' logits."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.metrics import Batch, Perplexity


@pytest.fixture(scope="module")
def ragged(tiny_ids: np.ndarray) -> Batch:
    """Sequences of 80, 2, 41, 79 and 17 tokens; what pads them must not matter."""
    lengths = torch.tensor([80, 2, 41, 79, 17])
    return Batch(torch.from_numpy(tiny_ids[:5].copy()), lengths, np.arange(5))


def expected_nll(series: Path, batch: Batch) -> list[np.ndarray]:
    model = GPTNeoXForCausalLM.from_pretrained(series / "step8", dtype=torch.float32).eval()
    rows = []
    for ids, length in zip(batch.ids_BT, batch.lengths_B.tolist(), strict=True):
        with torch.inference_mode():
            logits = model(ids[None, :length]).logits[0].double()
        surprise = -logits[:-1].log_softmax(-1)
        rows.append(surprise.gather(1, ids[1:length, None])[:, 0].numpy())
    return rows


def test_sums_and_tokens(tiny_series: Path, ragged: Batch) -> None:
    model = pythia_fast.load(tiny_series, 8, dtype="float32")
    columns = Perplexity(per_token=True)(model, ragged)
    expected = expected_nll(tiny_series, ragged)
    assert columns["tokens"].tolist() == [79, 1, 40, 78, 16]
    np.testing.assert_allclose(columns["nll"], [row.sum() for row in expected], rtol=1e-6)
    for ours, theirs in zip(columns["token_nll"].to_pylist(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert columns["nonfinite"].tolist() == [0] * 5


def test_a_step_is_weighted_by_tokens(tiny_series: Path, ragged: Batch) -> None:
    model = pythia_fast.load(tiny_series, 8, dtype="float32")
    columns = Perplexity()(model, ragged)
    summary = Perplexity().summarize(pa.table({k: np.asarray(v) for k, v in columns.items()}))
    loss = np.concatenate(expected_nll(tiny_series, ragged)).mean()
    assert summary["loss"] == pytest.approx(loss, abs=1e-6)
    assert summary["perplexity"] == pytest.approx(np.exp(loss), rel=1e-6)
    assert summary["tokens"] == 79 + 1 + 40 + 78 + 16


def test_an_infinite_loss_is_counted_and_kept() -> None:
    table = pa.table({"nll": [1.0, np.inf], "tokens": [1, 1], "nonfinite": [0, 1]})
    summary = Perplexity().summarize(table)
    assert summary["perplexity"] == np.inf
    assert summary["nonfinite"] == 1


def test_a_huge_loss_overflows_to_infinity_quietly() -> None:
    table = pa.table({"nll": [1e6], "tokens": [1], "nonfinite": [0]})
    assert Perplexity().summarize(table)["perplexity"] == np.inf


def test_no_sequences_give_nan() -> None:
    table = pa.table({"nll": pa.array([], pa.float64()), "tokens": pa.array([], pa.int64())})
    table = table.append_column("nonfinite", pa.array([], pa.int64()))
    assert np.isnan(Perplexity().summarize(table)["loss"])


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("per_token", [False, True])
def test_many_sequences_take_no_more_operations_than_few(per_token: bool) -> None:
    counts = []
    for sequences in (2, 200):
        nll_BT = torch.arange(sequences * 3, dtype=torch.float32).view(sequences, 3)
        scores = TokenScores(nll_BT, nll_BT, nll_BT, nll_BT.long(), nll_BT)
        lengths_B = torch.arange(sequences) % 4 + 1
        ids_BT = torch.zeros(sequences, 4, dtype=torch.int64)
        batch = Batch(ids_BT, lengths_B, np.arange(sequences), scores)
        with Operations() as operations:
            columns = Perplexity(per_token=per_token)(None, batch)
        counts.append(operations.count)
        if per_token:
            expected = [row[: k - 1] for row, k in zip(nll_BT.tolist(), lengths_B, strict=True)]
            assert columns["token_nll"].to_pylist() == expected
    assert counts[0] == counts[1]
