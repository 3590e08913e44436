"""Files that were hashed again for a step's results: known for these weights, and no others."""

from pathlib import Path

import pytest

from pythia_fast.errors import WriteError
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.folder.unchanged import is_unchanged, keep_unchanged

WEIGHTS, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", {"model": "x"})


def test_the_last_look_counts(folder: RunFolder) -> None:
    assert not is_unchanged(folder, 5, "now", WEIGHTS)
    keep_unchanged(folder, 5, "now", WEIGHTS)
    assert is_unchanged(folder, 5, "now", WEIGHTS)
    assert not is_unchanged(folder, 4, "now", WEIGHTS)
    assert not is_unchanged(folder, 5, "now", OTHER)
    assert not is_unchanged(folder, 5, "before", WEIGHTS)
    keep_unchanged(folder, 5, "later", WEIGHTS)
    assert not is_unchanged(folder, 5, "now", WEIGHTS)
    assert is_unchanged(folder, 5, "later", WEIGHTS)


@pytest.mark.parametrize(
    "record", ["", "{", "[]", "null", '{"identity": "now"}', "[" * 100_000, "\xff\xfe", '"now"']
)
def test_a_record_of_another_form_says_nothing(folder: RunFolder, record: str) -> None:
    keep_unchanged(folder, 5, "now", WEIGHTS)
    (folder.path / "unchanged/step=5.json").write_text(record, encoding="latin-1")
    assert not is_unchanged(folder, 5, "now", WEIGHTS)
    keep_unchanged(folder, 5, "now", WEIGHTS)
    assert is_unchanged(folder, 5, "now", WEIGHTS)


def test_symbolic_links_are_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / "unchanged").symlink_to(tmp_path)
    keep_unchanged(folder, 5, "now", WEIGHTS)
    assert not (tmp_path / "step=5.json").exists()


def test_a_folder_that_cannot_be_written_is_none_the_worse(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise WriteError(30, "Read-only file system")

    monkeypatch.setattr(folder, "post", refuse)
    keep_unchanged(folder, 5, "now", WEIGHTS)
    assert not is_unchanged(folder, 5, "now", WEIGHTS)
