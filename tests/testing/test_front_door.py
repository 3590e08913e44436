"""The room's names: each is where it is said to be, and importing the room costs nothing."""

import importlib
import subprocess
import sys

import pytest

import pythia_fast.testing as testing


def test_every_name_is_there() -> None:
    assert sorted(testing.__all__) == sorted(testing._HOME)
    for name, module in testing._HOME.items():
        home = importlib.import_module(f"pythia_fast.testing.{module}")
        assert getattr(testing, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing


def test_a_hub_needs_no_torch() -> None:
    program = "import sys; from pythia_fast.testing import HubServer; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
