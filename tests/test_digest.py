"""A file is hashed once, and again as soon as anything says that it may have changed."""

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pythia_fast import digest
from pythia_fast.core import File
from pythia_fast.digest import SETTLED_S, Digests, stamp

OLD_NS = 10**18
DATA = bytes(range(256)) * 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many seconds after the true time `digest` believes it to be."""

    def late(by_s: int) -> None:
        watch = SimpleNamespace(time_ns=lambda: time.time_ns() + by_s * 10**9)
        monkeypatch.setattr(digest, "time", watch)

    return late


@pytest.fixture
def path(tmp_path: Path, clock: Callable[[int], None]) -> Path:
    """A file that was written an hour ago."""
    clock(3600)
    return written(tmp_path / "weights", DATA)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    look = digest.sha256

    def looking(file: File) -> str:
        names.append(Path(file.path).name)
        return look(file)

    monkeypatch.setattr(digest, "sha256", looking)
    return names


def written(path: Path, data: bytes, modified_ns: int = OLD_NS) -> Path:
    """Write in place, or a new file, whose mtime says nothing of it."""
    path.write_bytes(data)
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


def test_what_is_known_is_not_read_again(path: Path, hashed: list[str]) -> None:
    digests = Digests()
    expected = hashlib.sha256(DATA).hexdigest()
    assert [digests.of(File(path)) for _ in range(3)] == [expected] * 3
    assert hashed == ["weights"]
    elsewhere = pickle.loads(pickle.dumps(digests))
    assert elsewhere.of(File(path)) == expected
    assert hashed == ["weights"]
    assert Digests().of(File(path)) == expected
    assert hashed == ["weights"] * 2


def in_place(path: Path) -> None:
    """The same size, and the mtime put back, as `cp -p` and `rsync --inplace -t` do."""
    written(path, DATA[::-1])


def replaced(path: Path) -> None:
    """By a file of the same size and mtime, as `rsync -t` does."""
    written(path.with_name("new"), DATA[::-1]).replace(path)


def longer(path: Path) -> None:
    """The same mtime."""
    written(path, DATA[::-1] + b"x")


def later(path: Path) -> None:
    """The same bytes as far as anybody can see, but for the time."""
    written(path, DATA, OLD_NS + 1)


@pytest.mark.parametrize("change", [in_place, replaced, longer, later])
def test_what_has_changed_is_read_again(
    path: Path, hashed: list[str], change: Callable[[Path], None]
) -> None:
    digests = Digests()
    opened = File(path)
    digests.of(opened)
    time.sleep(0.02)  # a tick of the file system's clock
    change(path)
    assert digests.of(File(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(hashed) == 2
    in_it = DATA if change is replaced else path.read_bytes()[: len(DATA)]
    assert digests.of(opened) == hashlib.sha256(in_it).hexdigest()  # it is what was opened


AGES = pytest.mark.parametrize(
    ("age_s", "read"), [(0, 2), (SETTLED_S - 30, 2), (-100, 2), (SETTLED_S + 30, 1)]
)


@AGES
def test_a_young_file_is_not_relied_on(
    path: Path, hashed: list[str], age_s: int, read: int
) -> None:
    """Its next write might show nothing: the times have ticks, and one may be yet to come."""
    digests = Digests()
    written(path, DATA, time.time_ns() + (3600 - age_s) * 10**9)
    for _ in range(2):
        digests.of(File(path))
    assert len(hashed) == read


@AGES
def test_nor_one_that_has_just_been_given_an_old_time(
    tmp_path: Path, hashed: list[str], clock: Callable[[int], None], age_s: int, read: int
) -> None:
    digests = Digests()
    path = written(tmp_path / "weights", DATA, OLD_NS)
    clock(age_s)
    for _ in range(2):
        digests.of(File(path))
    assert len(hashed) == read


def test_a_file_system_may_be_mounted_anew(path: Path) -> None:
    """The number of its device is then another; that of the file, and its times, are not."""
    status = path.stat()
    seen = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
    there = SimpleNamespace(**seen | {"st_dev": status.st_dev + 1, "st_atime_ns": 5, "st_nlink": 2})
    assert stamp(there) == stamp(status)  # type: ignore[arg-type]
    for name in ("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"):
        other = SimpleNamespace(**seen | {name: seen[name] + 1})
        assert stamp(other) != stamp(status)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["inode, sizes, times", "mtime", "nothing but the digest"])
def test_what_is_known_in_another_form_is_not_believed(
    path: Path, hashed: list[str], form: str
) -> None:
    status, wrong = path.stat(), "0" * 64
    sizes, times = (len(DATA), status.st_size), (status.st_mtime_ns, status.st_ctime_ns)
    old = {
        "inode, sizes, times": ((status.st_ino, *sizes, *times), wrong),
        "mtime": ((status.st_size, status.st_mtime_ns), wrong),
        "nothing but the digest": wrong,
    }[form]
    digests = Digests()
    digests._known = {str(path): old}  # type: ignore[dict-item]
    there = pickle.loads(pickle.dumps(digests))
    assert [there.of(File(path)) for _ in range(2)] == [hashlib.sha256(DATA).hexdigest()] * 2
    assert hashed == ["weights"]


def test_what_changes_while_it_is_read_is_not_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = digest.sha256

    def changing(file: File) -> str:
        found = look(file)
        time.sleep(0.02)
        written(path, DATA[::-1])
        return found

    digests = Digests()
    with monkeypatch.context() as patch:
        patch.setattr(digest, "sha256", changing)
        digests.of(File(path))
    assert digests.of(File(path)) == hashlib.sha256(DATA[::-1]).hexdigest()
