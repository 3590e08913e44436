"""Files and folders that appear under their name when they are complete, and not before."""

import os
from pathlib import Path

import pytest

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.publish import partial_of, published_folder, remove_partials


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with published_folder(tmp_path / "step0") as folder:
        (folder / "a").write_text("one")
        assert not (tmp_path / "step0").exists()
    assert (tmp_path / "step0" / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["step0"]


@pytest.mark.parametrize("kind", [ArgumentError, KeyboardInterrupt, OSError])
def test_it_does_not_if_something_fails(tmp_path: Path, kind: type[BaseException]) -> None:
    expected = WriteError if kind is OSError else kind

    def fail() -> None:
        with published_folder(tmp_path / "step0") as folder:
            (folder / "a").write_text("one")
            raise kind(28, "No space left on device")

    with pytest.raises(expected):
        fail()
    assert not list(tmp_path.iterdir())


def test_whoever_was_first_stays(tmp_path: Path) -> None:
    with published_folder(tmp_path / "x") as folder:
        (folder / "late").touch()
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "early").touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["early"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_folder_is_not_replaced(tmp_path: Path, what: str) -> None:
    target = tmp_path / "x"
    if what == "file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    before = target.lstat().st_ino
    with pytest.raises(WriteError, match="cannot write"), published_folder(target) as folder:
        (folder / "a").touch()
    assert target.lstat().st_ino == before
    assert not list(tmp_path.glob(".*"))


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    dead = 4_194_304  # Linux gives no number as high
    assert not Path("/proc", str(dead)).exists()
    for name in (
        f".x.{dead}-00ff.partial",
        f".x.{os.getpid()}-00ff.partial",
        f".y.{dead}-0.partial",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    (tmp_path / f".x.{dead}-01.partial").write_text("a file")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "content").touch()
    (tmp_path / f".x.{dead}-02.partial").symlink_to(tmp_path / "kept")
    remove_partials(tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".x.{os.getpid()}-00ff.partial",
        f".y.{dead}-0.partial",
        "kept",
    ]
    assert (tmp_path / "kept" / "content").exists()
    assert partial_of(tmp_path / "x").parent == tmp_path
