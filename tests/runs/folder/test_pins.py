"""Commits that a run folder holds on to."""

import json
from pathlib import Path

import pytest

from pythia_fast.errors import FormatError, MissingCheckpointError, RunMismatchError, WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.runs.folder.pins import pin, read_pin
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.series import Revision

ONE, TWO = "1" * 40, "2" * 40


def revision(commit: str | None, sha256: str | None = "a" * 64) -> Revision:
    return Revision(5, commit, (HubFile("model.safetensors", 7, sha256),), sha256)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", {"model": "x"})


def pinned(folder: RunFolder, revisions: dict[int, Revision]) -> dict[int, str]:
    return pin(folder, revisions, lambda step: folder.path / "parts" / f"step={step}")


def test_the_first_writer_wins(folder: RunFolder) -> None:
    assert pinned(folder, {5: revision(ONE)}) == {}
    assert pinned(folder, {5: revision(TWO)}) == {5: ONE}
    assert pinned(folder, {5: revision(ONE)}) == {}
    path = folder.path / "commits/step=5.json"
    assert read_pin(path).commit == ONE
    assert json.loads(path.read_text()) == {"commit": ONE, "weights_sha256": "a" * 64}


@pytest.mark.parametrize("then", ["a" * 64, None])
@pytest.mark.parametrize("now", ["b" * 64, None])
def test_weights_that_may_be_others_are_refused(
    folder: RunFolder, then: str | None, now: str | None
) -> None:
    pinned(folder, {5: revision(ONE, then)})
    with pytest.raises(RunMismatchError, match=rf"{ONE[:12]} then, .* at {TWO[:12]} now") as told:
        pinned(folder, {5: revision(TWO, now)})
    assert f"remove {folder.path / 'commits/step=5.json'} and {folder.path / 'parts/step=5'};" in (
        str(told.value)
    )


def test_nothing_is_pinned_without_a_commit_or_with_an_error(folder: RunFolder) -> None:
    missing = Revision(6, ONE, error=MissingCheckpointError("no weights"))
    assert pinned(folder, {5: revision(None), 6: missing}) == {}
    assert not (folder.path / "commits").exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"commit": "main", "weights_sha256": null}', '{"commit": 7}', "[" * 100_000],
    ids=["empty", "list", "object", "branch", "number", "deep"],
)
def test_a_file_that_is_no_pin_is_told(folder: RunFolder, text: str) -> None:
    pinned(folder, {5: revision(ONE)})
    path = folder.path / "commits/step=5.json"
    path.write_text(text)
    with pytest.raises(FormatError, match="no record of a commit"):
        pinned(folder, {5: revision(ONE)})


def test_symbolic_links_are_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "commits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match="symbolic link"):
        pinned(folder, {5: revision(ONE)})
