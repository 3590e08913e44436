"""Each promise in docs/faults.md has the test that it names."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = TESTS.parent / "docs" / "faults.md"
NAMED = re.findall(r"`([a-z_/]+\.py)(?:::(test_\w+))?`", DOCUMENT.read_text())


def test_every_row_names_a_test() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert all(".py" in row.rpartition(" | ")[2] for row in rows[1:])


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_it_is_there(file: str, name: str) -> None:
    wanted = f"def {name}(" if name else "def test_"
    assert wanted in (TESTS / file.removeprefix("tests/")).read_text()
