"""Without the compiled module, an import says how to build it."""

import subprocess
import sys

import pytest

import pythia_fast.core
from pythia_fast import _core
from pythia_fast.errors import CoreNotBuiltError


def test_the_error_says_how_to_build():
    code = "import sys\nsys.modules['pythia_fast._core'] = None\nimport pythia_fast.core\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CoreNotBuiltError" in done.stderr
    assert "pip install -e ." in done.stderr


def test_it_is_an_import_error():
    with pytest.raises(ImportError):
        raise CoreNotBuiltError


def test_every_public_name_is_handed_on():
    assert {name for name in dir(_core) if not name.startswith("_")} == set(
        pythia_fast.core.__all__
    )
