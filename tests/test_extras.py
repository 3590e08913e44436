"""What is said where an extra is not installed."""

import sys

import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require


def test_what_is_there_is_imported():
    assert require("json.decoder").__name__ == "json.decoder"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("scipy.stats", "analysis"),
        ("lm_eval", "eval"),
        ("pandas", "pandas"),
        ("plotly", "analysis"),
    ],
)
def test_what_is_not_there_is_named_with_its_extra(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    if "." in module:
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ArgumentError, match=rf"pip install 'pythia-fast\[{extra}\]'"):
        require(module)
