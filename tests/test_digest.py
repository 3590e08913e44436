"""A file is hashed once, and again as soon as anything says that it may have changed."""

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pythia_fast import digest
from pythia_fast.core import File
from pythia_fast.digest import SETTLED_S, Digests

OLD_NS = 10**18
DATA = bytes(range(256)) * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was written long ago."""
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
    """Write in place, or a new file, whose time of change says nothing of it."""
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
    """The same size, and the time of change put back."""
    written(path, DATA[::-1])


def replaced(path: Path) -> None:
    """By a file of the same size and time of change."""
    written(path.with_name("new"), DATA[::-1]).replace(path)


def longer(path: Path) -> None:
    """The same time of change."""
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


def test_a_young_file_is_not_relied_on(path: Path, hashed: list[str]) -> None:
    """Its next write might show nothing: the times have ticks, and one may be yet to come."""
    digests = Digests()
    now_ns = time.time_ns()
    for age_s, read in ((0, 2), (SETTLED_S - 30, 2), (-100, 2), (SETTLED_S + 30, 1)):
        written(path, DATA, now_ns - age_s * 10**9)
        hashed.clear()
        for _ in range(2):
            digests.of(File(path))
        assert len(hashed) == read


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
