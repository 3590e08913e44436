"""Numbers as the page reads them."""

import base64
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pythia_fast.report.packed import NOT_FINITE, losses, packed, plain


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_arrays_come_back_to_the_bit_whatever_their_byte_order(values: np.ndarray) -> None:
    for given_order in (values, values.astype(">f4")):
        found = packed(given_order)
        assert found["dtype"] == "<f4"
        again = np.frombuffer(base64.b64decode(found["data"]), "<f4")
        np.testing.assert_array_equal(again, values)


@settings(deadline=None)
@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32)))
def test_losses_are_within_half_a_thousandth_or_say_that_they_are_not_finite(
    nats: np.ndarray,
) -> None:
    codes = losses(nats)
    finite = np.isfinite(nats)
    np.testing.assert_array_equal(codes == NOT_FINITE, ~finite)
    inside = finite & (nats >= 0) & (nats < 65)
    np.testing.assert_allclose(codes[inside] / 1000, nats[inside], rtol=0, atol=5.1e-4)


def test_what_json_lacks_gets_a_name() -> None:
    value = {1: (float("nan"), float("-inf"), 2.5, None, True), "path": np.float32}
    found = plain(value)
    assert found["1"] == ["nan", "-inf", 2.5, None, True]
    assert isinstance(found["path"], str)


@pytest.mark.parametrize("dtype", ["<i1", "<i4", "<u2"])
def test_the_page_knows_every_dtype(dtype: str) -> None:
    script = (files("pythia_fast.report") / "page" / "base.js").read_text()
    assert f'"{packed(np.zeros(1, dtype))["dtype"]}"' in script
