"""Panels of sixteen tokens: embedding rows into them, and rows out of them, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.panels import LANES, panelled, panels_of

WIDTHS = st.sampled_from((1, 2, 15, 16, 17, 31, 33, 64, 100))


def table(V, D, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (10 ** torch.empty(V, D).uniform_(-6, 3, generator=g)).to(dtype)


def unpanelled(x_PDL):
    """The definition of a panel, spelt out."""
    P, D, _ = x_PDL.shape
    return x_PDL.transpose(1, 2).reshape(P * LANES, D)


@settings(deadline=None, max_examples=25)
@given(V=st.integers(1, 40), D=WIDTHS, pairs=st.integers(1, 5), seed=st.integers(0, 99))
def test_embedding_is_a_look_up_and_unpacking_its_inverse(native, stored, V, D, pairs, seed):
    table_VD = table(V, D, stored, seed)
    ids_PL = torch.randint(V, (2 * pairs, LANES), generator=torch.Generator().manual_seed(seed))
    x_PDL = native.embed(ids_PL, table_VD)
    expected_ND = table_VD[ids_PL.flatten()].float()
    assert torch.equal(unpanelled(x_PDL), expected_ND)
    assert torch.equal(native.kernels.unpack(x_PDL), expected_ND)


def test_values_that_are_none_and_the_smallest_pass(native, stored):
    tiniest = torch.finfo(stored).smallest_normal / 4
    values = [
        0.0,
        -0.0,
        float("inf"),
        float("-inf"),
        tiniest,
        torch.finfo(stored).max,
        float("nan"),
    ]
    table_VD = torch.tensor(values).to(stored)[:, None].repeat(1, 17)
    ids_PL = torch.arange(32).remainder(len(values)).view(2, LANES)
    rows_ND = native.kernels.unpack(native.embed(ids_PL, table_VD))
    expected_ND = table_VD[ids_PL.flatten()].float()
    assert torch.equal(rows_ND.nan_to_num(7), expected_ND.nan_to_num(7))
    assert torch.equal(rows_ND.signbit(), expected_ND.signbit())
    assert torch.equal(rows_ND.isnan(), expected_ND.isnan())


def test_rows_of_a_wider_matrix_are_read_where_they_lie(native, stored):
    table_VD = table(9, 40, stored)[:, 3:24]
    ids_PL = torch.arange(32).remainder(9).view(2, LANES)
    rows_ND = native.kernels.unpack(native.embed(ids_PL, table_VD))
    assert torch.equal(rows_ND, table_VD[ids_PL.flatten()].float())


@settings(deadline=None, max_examples=15)
@given(V=st.integers(1, 40), D=WIDTHS, N=st.integers(1, 70), seed=st.integers(0, 99))
def test_rows_picked_of_a_matrix_are_an_operand(native, stored, V, D, N, seed):
    g = torch.Generator().manual_seed(seed)
    table_VD = torch.randn(V, D, generator=g).to(stored)
    rows_N = torch.randint(V, (N,), generator=g)
    picked = native.rows(native.kernels.pick(table_VD, rows_N))
    expected = native.rows(native.operand(table_VD[rows_N]))
    assert torch.equal(picked, expected)
    assert not picked[N:].any()
    assert not picked[:, D:].any()
    whole = native.rows(native.kernels.pick(table_VD))
    assert torch.equal(whole, native.rows(native.operand(table_VD)))


@pytest.mark.parametrize("row", [-2, 9])
def test_a_row_that_a_matrix_lacks_is_not_picked(native, row):
    with pytest.raises(ArgumentError, match="-1 to 8, got"):
        native.kernels.pick(torch.ones(9, 4), torch.tensor([0, row]))


@pytest.mark.parametrize(("B", "T"), [(1, 1), (1, 16), (1, 17), (3, 5), (2, 32), (3, 33), (5, 100)])
def test_each_sequence_takes_whole_panels_and_they_are_even(B, T):
    ids_BT = torch.arange(1, B * T + 1).view(B, T)
    ids_PL = panels_of(ids_BT)
    each = -(-T // LANES)
    assert len(ids_PL) % 2 == 0
    assert len(ids_PL) - B * each in (0, 1)
    assert torch.equal(ids_PL[: B * each].reshape(B, -1)[:, :T], ids_BT)
    assert ids_PL.sum() == ids_BT.sum()


@settings(deadline=None, max_examples=30)
@given(N=st.integers(1, 100), D=WIDTHS)
def test_rows_go_into_panels_and_come_back(N, D):
    h_ND = torch.randn(N, D)
    x_PDL = panelled(h_ND)
    assert len(x_PDL) % 2 == 0
    rows_ND = unpanelled(x_PDL)
    assert torch.equal(rows_ND[:N], h_ND)
    assert not rows_ND[N:].any()


@pytest.mark.parametrize("token", [-1, 9])
def test_a_token_outside_the_vocabulary_is_refused(native, token):
    ids_PL = torch.zeros(2, LANES, dtype=torch.int64)
    ids_PL[1, 3] = token
    with pytest.raises(ArgumentError, match="0 to 8, got"):
        native.embed(ids_PL, torch.ones(9, 4))
