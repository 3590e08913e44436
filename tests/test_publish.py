"""Files and folders that appear under their name when they are complete, and not before."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from pythia_fast import identity
from pythia_fast.errors import ArgumentError, ReadError, WriteError
from pythia_fast.publish import (
    TakenError,
    existing_folder,
    free_bytes,
    is_writable,
    make_folder,
    partial_of,
    published_folder,
    remove_partials,
    require_space,
    require_writable,
    write_error,
    writing,
)


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
    def fill() -> None:
        with published_folder(tmp_path / "x") as folder:
            (folder / "late").touch()
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "early").touch()

    with pytest.raises(TakenError):
        fill()
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


DEAD = 4_194_304  # Linux gives no number as high


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    assert not Path("/proc", str(DEAD)).exists()
    writer = f"{DEAD}-{identity.mark()}"
    living = partial_of(tmp_path / "x")
    for path in (living, tmp_path / f".x.{writer}00000000.partial"):
        path.mkdir()
        (path / "half").touch()
    (tmp_path / f".y.{writer}00000000.partial").mkdir()
    (tmp_path / f".x.{writer}00000001.partial").write_text("a file")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "content").touch()
    (tmp_path / f".x.{writer}00000002.partial").symlink_to(tmp_path / "kept")
    remove_partials(tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [living.name, f".y.{writer}00000000.partial", "kept"]
    )
    assert (tmp_path / "kept" / "content").exists()
    assert living.parent == tmp_path


@pytest.mark.parametrize(
    ("elsewhere", "dead"),
    [
        ({"_namespace": "pid:[1]"}, False),  # another container on this machine
        ({"_machine": "0" * 8, "_boot": "another"}, False),  # another machine
        ({"_machine": "0" * 8}, True),  # this one, under another name
        ({"_boot": "another"}, True),  # this one, before it was started again
        ({}, True),
    ],
)
def test_only_what_is_known_to_be_dead_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, str], dead: bool
) -> None:
    """The number of a process means nothing elsewhere."""
    with monkeypatch.context() as patch:
        for name, value in elsewhere.items():
            patch.setattr(identity, name, lambda value=value: value)
        patch.setattr(os, "getpid", lambda: DEAD)
        partial = partial_of(tmp_path / "x")
    partial.mkdir()
    remove_partials(tmp_path / "x")
    assert partial.exists() != dead


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    """Of a link that leads nowhere the system says that it exists."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()

    def words(path: Path) -> str:
        with pytest.raises(OSError) as caught:
            path.mkdir(parents=True, exist_ok=True)
        return str(write_error(path, caught.value)).partition(": ")[2]

    for path in (tmp_path / "link", tmp_path / "link/x/y"):
        assert words(path).startswith(f"{tmp_path / 'link'} is a link that leads nowhere: ")
    for path in (tmp_path / "file", tmp_path / "file/x/y"):
        assert words(path).startswith(f"{tmp_path / 'file'} is a file, not a folder: ")
    gone = FileNotFoundError(2, "No such file or directory")
    assert str(write_error(tmp_path / "file", gone)).endswith("No such file or directory")


def test_a_folder_is_made_or_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a/b")
        assert (tmp_path / "a/b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(
        WriteError, match=r"cannot write .*/file/c: .*/file is a file, not a folder"
    ):
        make_folder(tmp_path / "file/c")


def test_what_the_system_refuses_is_a_write_error_and_ours_stay_what_they_are(
    tmp_path: Path,
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(WriteError, match=r"cannot write .*/x: No space") as caught,
        writing(tmp_path / "x"),
    ):
        raise full
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(ReadError, match="another file"), writing(tmp_path / "x"):
        raise ReadError("another file")


def test_room_is_that_of_the_folder_which_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert existing_folder(tmp_path / "not/there/yet") == existing_folder(tmp_path) == tmp_path
    usage = shutil.disk_usage(tmp_path)
    seen = []

    def look(folder: Path) -> object:
        seen.append(folder)
        return usage._replace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", look)
    assert free_bytes(tmp_path / "not/there/yet") == 1000
    require_space(tmp_path / "yet", 1000)
    with pytest.raises(WriteError, match=r"/yet has 1 kB free, but 2 kB are .*, or move") as caught:
        require_space(tmp_path / "yet", 2000, "move")
    assert caught.value.errno == errno.ENOSPC
    assert seen == [tmp_path] * 3


def test_whether_files_can_be_made_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path)
    require_writable(tmp_path / "not/there/yet")
    assert is_writable(tmp_path)
    assert not is_writable(tmp_path / "not/there/yet")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(WriteError, match=r"cannot write .*/file/x: .*/file is a file, not"):
        require_writable(tmp_path / "file/x")
    refused, allowed = os.strerror(errno.EROFS), Path.open

    def refuse(path: Path, mode: str = "r", **named: object) -> object:
        if "x" in mode:
            raise OSError(errno.EROFS, refused, str(path))
        return allowed(path, mode, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)  # root ignores permissions
    with pytest.raises(WriteError, match=f"cannot write {tmp_path}: {refused}; move") as caught:
        require_writable(tmp_path, "move")
    assert caught.value.errno == errno.EROFS
    new = tmp_path / "new"
    words = f"cannot write {new}: no file can be made in {tmp_path} .{refused}.; write el"
    with pytest.raises(WriteError, match=words):
        require_writable(new)
    assert not is_writable(tmp_path)
