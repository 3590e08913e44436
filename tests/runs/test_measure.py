"""What a metric is given, and what is looked at before."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import pythia_fast
from pythia_fast.errors import TokenRangeError
from pythia_fast.metrics import Batch
from pythia_fast.model import Model
from pythia_fast.runs.measure import measure
from pythia_fast.tokens import TokenDataset


class Asking:
    """A metric that asks the model about its batch."""

    name = "asking"

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, np.ndarray]:
        """The numbers of the rows."""
        model.check_ids(batch.ids_BT, labels=1)
        self.batches.append(batch)
        return {"row": batch.rows_B}


ROWS = np.array([5, 1, 2, 7])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_ids_are_looked_at_before_they_are_on_the_models_device(
    tiny_series: Path, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Numbers on "meta" cannot be looked at, and those on a GPU only by waiting."""
    model = pythia_fast.load(tiny_series, 16, device="cpu", dtype="float32")
    monkeypatch.setattr(Model, "device", torch.device(device))
    asking, done = Asking(), []
    (table,) = measure(
        *([asking], model, TokenDataset(tiny_ids), ROWS),
        batch_tokens=2 * tiny_ids.shape[1],
        advance=done.append,
    )
    assert table["sequence"].to_pylist() == table["row"].to_pylist() == ROWS.tolist()
    assert sum(done) == ROWS.size * tiny_ids.shape[1]
    assert len(asking.batches) == 2
    for batch, rows in zip(asking.batches, (ROWS[:2], ROWS[2:]), strict=True):
        for tensor in (batch.ids_BT, batch.lengths_B):
            assert (tensor.device.type, tensor.dtype) == (device, torch.int64)
        np.testing.assert_array_equal(batch.rows_B, rows)
        if device == "cpu":
            np.testing.assert_array_equal(batch.ids_BT.numpy(), tiny_ids[rows])
            assert set(batch.lengths_B.tolist()) == {tiny_ids.shape[1]}


def test_an_id_outside_the_embedding_is_found_on_the_host(
    tiny_series: Path, tiny_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pythia_fast.load(tiny_series, 16, device="cpu", dtype="float32")
    monkeypatch.setattr(Model, "device", torch.device("meta"))
    ids = tiny_ids.copy()
    ids[2, 3] = 60_000
    asking = Asking()
    with pytest.raises(TokenRangeError, match="60000"):
        measure(
            *([asking], model, TokenDataset(ids), ROWS), batch_tokens=10**6, advance=lambda _: None
        )
    assert not asking.batches
