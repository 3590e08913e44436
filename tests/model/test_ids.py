"""Ids are looked at on the host, and not again where looking would mean to wait.

The place far away is torch's "meta", whose numbers nobody can look at.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.model import Model
from pythia_fast.suite import Architecture


@pytest.fixture
def near(tiny: Architecture, pair_of: Callable) -> Model:
    return pair_of(tiny).ours


@pytest.fixture
def far(near: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose device is elsewhere."""
    monkeypatch.setattr(Model, "device", torch.device("meta"))
    return near


@pytest.fixture
def ids(tiny: Architecture) -> np.ndarray:
    return np.random.default_rng(0).integers(0, tiny.vocab_rows, (3, 9))


def test_what_was_placed_is_not_looked_at_again(far: Model, ids: np.ndarray) -> None:
    placed_BT = far.place_ids(ids)
    assert (placed_BT.device.type, placed_BT.dtype) == ("meta", torch.int64)
    assert far.check_ids(placed_BT) is placed_BT
    assert far.check_ids(placed_BT, labels=1) is placed_BT
    for other_BT in (placed_BT.clone(), placed_BT[:2], far.place_ids(ids[:2]) + 0):
        with pytest.raises((RuntimeError, NotImplementedError)):
            far.check_ids(other_BT)


def test_what_was_written_to_is_looked_at_again(far: Model, ids: np.ndarray) -> None:
    for inference in (False, True):
        placed_BT = far.place_ids(ids)
        with torch.inference_mode(inference):
            placed_BT[:1] += 1
        with pytest.raises((RuntimeError, NotImplementedError)):
            far.check_ids(placed_BT)
    with torch.inference_mode():
        placed_BT = far.place_ids(ids)
    with pytest.raises((RuntimeError, NotImplementedError)):
        far.check_ids(placed_BT)


@pytest.mark.parametrize("token", [-1, 160])
def test_an_id_outside_the_embedding_does_not_get_there(
    far: Model, ids: np.ndarray, token: int
) -> None:
    ids[1, 4] = token
    with pytest.raises(TokenRangeError) as caught:
        far.place_ids(ids)
    assert (caught.value.sequence, caught.value.offset, caught.value.token) == (1, 4, token)
    with pytest.raises(ArgumentError, match="ids are integers"):
        far.place_ids(ids.astype(np.float32))


def test_the_length_is_for_who_takes_them(far: Model, ids: np.ndarray) -> None:
    for T in (0, 130):
        placed_BT = far.place_ids(np.zeros((2, T), np.int64))
        assert placed_BT.shape == (2, T)
        with pytest.raises(ArgumentError, match="1 to 128 tokens"):
            far.check_ids(placed_BT)


def test_memory_that_others_may_write_to_is_not_trusted(near: Model, ids: np.ndarray) -> None:
    placed_BT = near.place_ids(ids)
    torch.testing.assert_close(near.nll(placed_BT), near.nll(ids), rtol=0, atol=0)
    ids[1, 4] = 160
    with pytest.raises(TokenRangeError):
        near.nll(placed_BT)
