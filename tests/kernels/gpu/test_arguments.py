"""What the kernels on the qkv projection refuse: here alone, since nothing is launched."""

import pytest
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.gpu import HEAD_DIMS
from pythia_fast.kernels.gpu.arguments import check_cache, check_projection, check_rope
from pythia_fast.kernels.rotary import Rope, rope_tables


@pytest.mark.parametrize("K", sorted(HEAD_DIMS))
def test_every_head_width_fits(K):
    qkv_BTC, out_BTD = torch.zeros(2, 8, 6 * K), torch.zeros(2, 8, 5 * K)[:, :, : 2 * K]
    assert check_projection(qkv_BTC, 2, rope_tables(8, K, 1e4), out_BTD) == (2, 8, 6 * K)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("heads of width 32, 64", {"heads": 3}),
        ("heads of width 32, 64", {"heads": 4}),
        ("heads of width 32, 64", {"heads": 5}),
        ("contiguous", {"qkv": torch.zeros(2, 8, 384)[:, :, ::2]}),
        ("multiple of 16 bytes", {"qkv": torch.zeros(2 * 8 * 192 + 1)[1:].view(2, 8, 192)}),
        ("34 rotated dimensions of 32", {"rope": rope_tables(8, 34, 1e4)}),
        ("out", {"out": torch.zeros(2, 8, 65)}),
        ("out", {"out": torch.zeros(2, 8, 64).half()}),
        ("out", {"out": torch.zeros(2, 8, 128)[:, :, ::2]}),
    ],
)
def test_a_projection_that_does_not_fit_is_refused(match, change):
    given = {"qkv": torch.zeros(2, 8, 192), "heads": 2, "rope": rope_tables(8, 8, 1e4)}
    given |= {"out": torch.zeros(2, 8, 64)} | change
    with pytest.raises(ArgumentError, match=match):
        check_projection(given["qkv"], given["heads"], given["rope"], given["out"])


def both(table_TP):
    return Rope(table_TP, table_TP)


@pytest.mark.parametrize("table_TP", [torch.zeros(8, 4), torch.zeros(9, 0), torch.zeros(2, 8, 4)])
def test_tables_of_all_sequences_or_of_each_fit(table_TP):
    check_rope(both(table_TP), 2, 8)


@pytest.mark.parametrize(
    ("B", "rope"),
    [
        (2, rope_tables(7, 8, 1e4)),
        (2, both(torch.zeros(3, 8, 4))),
        (2, both(torch.zeros(2, 9, 4))),
        (None, both(torch.zeros(2, 8, 4))),
        (2, both(torch.zeros(8, 8)[:, ::2])),
        (2, Rope(torch.zeros(8, 4), torch.zeros(8, 4).double())),
    ],
)
def test_tables_that_do_not_fit_are_refused(B, rope):
    with pytest.raises(ArgumentError, match=r"tables are \[8, R/2\]"):
        check_rope(rope, B, 8)


def test_a_cache_of_some_of_the_slots_fits():
    check_cache(torch.zeros(2, 5, 2, 8, 32)[:, 1:3], torch.zeros(2, 8, 192), 2)


@pytest.mark.parametrize(
    "cache",
    [
        torch.zeros(2, 2, 1, 8, 32),
        torch.zeros(3, 2, 2, 8, 32),
        torch.zeros(2, 2, 2, 8, 32).half(),
        torch.zeros(2, 2, 2, 8, 64)[..., ::2],
        torch.zeros(2, 2, 2, 9, 32)[..., :8, :],
        torch.zeros(2, 2, 2, 8),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(cache):
    with pytest.raises(ArgumentError, match=r"a cache is \[2, sequences, 2, positions, 32\]"):
        check_cache(cache, torch.zeros(2, 8, 192), 2)
