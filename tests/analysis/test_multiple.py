"""Holm's correction against its definition, with gaps."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.analysis.multiple import holm

TESTED = st.floats(0, 1) | st.none() | st.just(math.nan)


@settings(deadline=None, max_examples=30)
@given(st.lists(TESTED, max_size=12))
def test_it_is_the_definition_and_leaves_gaps(p_values) -> None:
    there = sorted(p for p in p_values if p is not None and not math.isnan(p))
    expected: list[float] = []
    for rank, p in enumerate(there):
        expected.append(max([min(1, (len(there) - rank) * p), *expected[-1:]]))
    found = holm(p_values)
    assert [p is None for p in found] == [p is None or math.isnan(p) for p in p_values]
    assert sorted(p for p in found if p is not None) == pytest.approx(expected)


def test_all_nulls_hold_at_once_and_the_order_is_kept() -> None:
    assert holm([]) == []
    assert holm([0.03, None, 0.01, 0.04]) == pytest.approx([0.06, None, 0.03, 0.06])
