"""Checksums beside hashlib and sha256sum, and lists in every form that is about."""

import hashlib
import os
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import ArgumentError, FormatError, MissingTokensError, ReadError
from pythia_fast.tokens import checksum, checksum_list
from pythia_fast.tokens.checksum import check, checksums, describe, token_files, whole_checksum
from pythia_fast.tokens.checksum_list import format_checksums, read_checksums
from pythia_fast.tokens.shards import shard_name

A, B = "a" * 64, "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path):
    """Three shards of random bytes, two of them of several steps of hashing, and an index."""
    random = np.random.default_rng(0)
    place = tmp_path / "data"
    place.mkdir()
    for number, size in enumerate((700_001, 700_001, 5)):
        (place / shard_name("document", number, 2)).write_bytes(random.bytes(size))
    (place / "document.idx").write_bytes(b"index")
    (place / "README.md").write_bytes(b"words")
    return place


def of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shards(folder):
    return sorted(folder.glob("*.bin"))


class TestDigest:
    def test_files_one_after_the_other(self, folder):
        files = [File(path) for path in shards(folder)]
        seen = []
        together = b"".join(path.read_bytes() for path in shards(folder))
        assert sha256(*files, seen=seen.append) == hashlib.sha256(together).hexdigest()
        assert sum(seen) == len(together)
        assert max(seen) <= 1 << 18
        assert sha256() == hashlib.sha256().hexdigest()

    def test_a_file_that_shrinks(self, folder):
        path = shards(folder)[0]
        file = File(path)
        os.truncate(path, 400_000)
        with pytest.raises((ReadError, FormatError)):
            sha256(file)


class TestLists:
    @pytest.mark.parametrize(
        "line",
        [
            f"{B}  a b.bin",
            f"{B} *a b.bin",
            f"{B.upper()}  a b.bin",
            f"{B}\ta b.bin",
            f"a b.bin {B}",
            f"a b.bin: {B}",
            f"a b.bin\t{B}",
            f"SHA256 (a b.bin) = {B}",
            f"{B}  ./a b.bin",
            f"\ufeff{B}  a b.bin\r",
            f"# checksums\n\n  \n{B}  a b.bin\n\n",
        ],
    )
    def test_forms(self, tmp_path, line):
        (tmp_path / "list").write_text(line, encoding="utf-8", newline="")
        assert read_checksums(tmp_path / "list") == {"a b.bin": B}

    def test_the_published_form(self, tmp_path):
        stem = "pile_0.87_deduped_text_document"
        names = [*(shard_name(stem, number, 82) for number in range(83)), f"{stem}.idx"]
        wanted = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
        lines = [f"{name} {digest}\n" for name, digest in wanted.items()]
        (tmp_path / "shard_hashes.txt").write_text("".join(lines))
        assert read_checksums(tmp_path / "shard_hashes.txt") == wanted

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "no checksum"),
            ("# nothing\n", "no checksum"),
            (f"{A}  a.bin\nnonsense\n", "line 2"),
            (f"{A[:-1]}  a.bin", "line 1"),
            (f"{A[:-1]}g  a.bin", "64 hexadecimal"),
            (A, "line 1"),
            (f"{A}  a.bin\n{B}  a.bin", "another checksum"),
            (f"{A}  /etc/passwd", "does not lie"),
            (f"{A}  ../a.bin", "does not lie"),
            (f"{A}  a/../../a.bin", "does not lie"),
            (f"{A}  .", "does not lie"),
            (f"{A}  a\0.bin", "does not lie"),
        ],
    )
    def test_lines_that_are_none(self, tmp_path, text, words):
        (tmp_path / "list").write_text(text)
        with pytest.raises(FormatError, match=words):
            read_checksums(tmp_path / "list")

    def test_a_list_that_is_too_long_is_refused_and_not_cut(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checksum_list, "_LIST_BYTES", 100)
        (tmp_path / "list").write_text(f"{A}  a.bin\n{B}  b.bin\n")
        with pytest.raises(FormatError, match="at most 100 bytes"):
            read_checksums(tmp_path / "list")

    def test_a_file_twice_with_one_checksum(self, tmp_path):
        (tmp_path / "list").write_text(f"{A}  a.bin\na.bin {A}\n")
        assert read_checksums(tmp_path / "list") == {"a.bin": A}

    def test_no_list(self, tmp_path):
        with pytest.raises(MissingTokensError, match="no list"):
            read_checksums(tmp_path / "list")
        with pytest.raises(ReadError, match="cannot read"):
            read_checksums(tmp_path)

    @settings(max_examples=100, deadline=None)
    @given(
        names=st.lists(
            st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name)),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    def test_any_name_comes_back(self, tmp_path_factory, names):
        wanted = {
            os.fsdecode(name): hashlib.sha256(name).hexdigest()
            for name in names
            if name not in (b".", b"..")
        }
        if not wanted:
            return
        path = tmp_path_factory.mktemp("list") / "list"
        path.write_bytes(os.fsencode(format_checksums(wanted)))
        assert read_checksums(path) == wanted

    def test_sha256sum_takes_what_is_written_and_is_understood(self, folder):
        (folder / "odd\\name\n.bin").write_bytes(b"odd")
        text = format_checksums(checksums(folder))
        (folder / "list").write_text(text)
        done = subprocess.run(
            ["sha256sum", "-c", "--strict", "list"], cwd=folder, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        theirs = subprocess.run(
            ["sha256sum", *(path.name for path in token_files(folder))],
            cwd=folder,
            capture_output=True,
            check=True,
        )
        assert os.fsencode(text) == theirs.stdout
        assert check(folder, read_checksums(folder / "list")).ok


class TestWhatIsHashed:
    def test_a_folder_a_file_a_prefix(self, folder):
        four = {path.name: of(path) for path in sorted([*shards(folder), folder / "document.idx"])}
        assert checksums(folder) == four
        assert list(checksums(folder)) == list(four)
        assert checksums(folder / "document") == four
        assert checksums(folder / "README.md") == {"README.md": of(folder / "README.md")}
        (folder / "pair.bin").write_bytes(b"ids")
        assert checksums(folder / "pair", threads=1) == {"pair.bin": of(folder / "pair.bin")}

    def test_nothing(self, tmp_path, folder):
        with pytest.raises(MissingTokensError, match="holds neither"):
            checksums(tmp_path / "nothing")
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingTokensError, match=r"neither \.bin nor \.idx"):
            checksums(tmp_path / "empty")
        with pytest.raises(ArgumentError, match="threads"):
            checksums(folder, threads=0)

    def test_progress_reaches_the_end_and_only_rises(self, folder):
        told = []
        checksums(folder, progress=lambda *numbers: told.append(numbers))
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1] == (1_400_012, 1_400_012)

    def test_the_whole(self, folder, tmp_path):
        together = b"".join(path.read_bytes() for path in shards(folder))
        wanted = ("document.bin", hashlib.sha256(together).hexdigest())
        told = []
        assert whole_checksum(folder, progress=lambda *each: told.append(each)) == wanted
        assert told[-1] == (len(together), len(together))
        assert whole_checksum(folder / "document.idx") == wanted
        (tmp_path / "document.bin").write_bytes(together)
        assert whole_checksum(tmp_path / "document") == wanted
        shards(folder)[1].unlink()
        with pytest.raises(MissingTokensError, match="missing"):
            whole_checksum(folder)


class TestAgainstAList:
    def test_all_is_well(self, folder):
        expected = {path.name: of(path) for path in shards(folder)}
        found = check(folder, expected)
        assert found.ok
        assert found.digests == expected
        assert found.extra == ("document.idx",)
        assert list(describe(found, expected)) == [
            *(f"{name}: OK" for name in expected),
            "document.idx: not in the list",
        ]

    def test_what_is_wrong_missing_or_unreadable_is_named_and_the_rest_is_hashed(self, folder):
        first, second, third = (path.name for path in shards(folder))
        expected = {name: of(folder / name) for name in (first, second, "README.md")}
        expected |= {third: B, "gone.bin": A, "sub": A}
        (folder / "sub").mkdir()
        found = check(folder, expected, threads=2)
        assert not found.ok
        assert found.wrong == (third,)
        assert found.missing == ("gone.bin",)
        assert list(found.unreadable) == ["sub"]
        assert found.digests == {
            name: of(folder / name) for name in (first, second, "README.md", third)
        }
        lines = dict(line.split(": ", 1) for line in describe(found, expected))
        assert lines[third].startswith(f"WRONG, it has {of(folder / third)}, not {B}")
        assert lines["gone.bin"] == "MISSING"
        assert lines["sub"].startswith("UNREADABLE")
        assert lines[first] == "OK"

    def test_capital_letters_are_the_same(self, folder):
        assert check(folder, {"document.idx": of(folder / "document.idx").upper()}).ok

    def test_no_folder(self, folder):
        with pytest.raises(ArgumentError, match="is no folder"):
            check(folder / "README.md", {"a": A})

    def test_what_stops_one_stops_all(self, folder):
        """Nothing more is told, and no file is hashed to its end."""
        for path in shards(folder):
            with path.open("r+b") as file:
                file.truncate(1 << 33)  # sparse; hashing all of it would take long
        told = []

        def progress(done, total):
            told.append(done)
            if len(told) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            checksum.checksums(folder, threads=3, progress=progress)
        assert len(told) == 3
