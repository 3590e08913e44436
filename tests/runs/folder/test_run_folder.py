"""The run folder: published whole or not at all, never changed, never outside itself."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pythia_fast
from pythia_fast.errors import FormatError, RunMismatchError, WriteError
from pythia_fast.metrics import Perplexity
from pythia_fast.runs.folder.parts import Failure, numbered, read_failures, read_part, read_run
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.plan import Unit

Sweep = Callable[..., pythia_fast.SweepResult]
TABLE = pa.table({"sequence": [0, 1], "nll": [1.5, 2.5]})
UNIT = Unit(8, Perplexity(), 0, 1, np.arange(2))


def make_read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No file can be made in it, nor below, whoever asks: root ignores permissions."""
    allowed = Path.open

    def refuse(path: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if mode != "r" and mode != "rb" and (folder in path.parents):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return allowed(path, mode, *rest, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", {"model": "x"})


def test_what_is_published_is_read_back(folder: RunFolder) -> None:
    assert not folder.done(UNIT)
    folder.publish(UNIT, TABLE, {"step": 8})
    assert folder.done(UNIT)
    assert folder.table(UNIT).equals(TABLE)
    assert folder.provenance(UNIT) == {"step": 8}
    assert (folder.path / "parts/step=8/perplexity-00000.parquet").is_file()


def test_the_first_writer_stays(folder: RunFolder) -> None:
    folder.publish(UNIT, TABLE, {"writer": 1})
    folder.publish(UNIT, TABLE.slice(0, 1), {"writer": 2})
    assert folder.provenance(UNIT) == {"writer": 1}
    assert not list(folder.path.rglob("*.partial"))


def test_without_links_a_rename_does(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    folder.publish(UNIT, TABLE, {})
    assert folder.table(UNIT).equals(TABLE)


def test_the_run_says_what_it_is(folder: RunFolder) -> None:
    run = json.loads((folder.path / "run.json").read_text())
    assert run["specification"] == {"model": "x"}
    assert run["hash"] == folder.hash
    assert run["versions"]["pythia-fast"] == pythia_fast.__version__
    RunFolder(folder.path, {"model": "x"})
    with pytest.raises(RunMismatchError, match='model: there "x", asked for "y"'):
        RunFolder(folder.path, {"model": "y"})


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(RunMismatchError, match=r"thesis\.tex"):
        RunFolder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1}', "\xff"])
def test_a_broken_run_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError):
        RunFolder(tmp_path, {})


@pytest.mark.parametrize("place", ["parts", "parts/step=8", UNIT.path])
def test_symbolic_links_are_not_followed(folder: RunFolder, tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = folder.path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(WriteError, match="symbolic link"):
        folder.publish(UNIT, TABLE, {})
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("offset", [10, 60, -6, -2])
def test_a_damaged_part_is_told(folder: RunFolder, offset: int) -> None:
    folder.publish(UNIT, TABLE, {"step": 8})
    path = folder.path / UNIT.path
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FormatError, match="computes it again"):
        read_part(path)


def test_a_truncated_part_is_told(folder: RunFolder) -> None:
    folder.publish(UNIT, TABLE, {"step": 8})
    path = folder.path / UNIT.path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError):
        folder.provenance(UNIT)


def test_failures_are_kept_until_they_are_forgotten(folder: RunFolder) -> None:
    folder.record_failure(Failure(4, "OSError", "first"))
    folder.record_failure(Failure(4, "OSError", "second"))
    folder.record_failure(Failure(2, "ValueError", "<b>"))
    assert read_failures(folder.path) == (
        Failure(2, "ValueError", "<b>"),
        Failure(4, "OSError", "second"),
    )
    folder.forget_failure(4)
    folder.forget_failure(100)
    assert [failure.step for failure in read_failures(folder.path)] == [2]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"error": "OSError"}'])
def test_a_broken_record_of_a_failure_is_told(folder: RunFolder, content: str) -> None:
    folder.record_failure(Failure(4, "OSError", "first"))
    (folder.path / "failures/step=4.json").write_text(content)
    with pytest.raises(FormatError, match="remove it"):
        read_failures(folder.path)


def test_too_little_space_is_told_before_the_start(folder: RunFolder) -> None:
    folder.check_space(1)
    with pytest.raises(
        WriteError, match=r"B free, but 1\.15e\+06 TB are to be written: .*`out`"
    ) as caught:
        folder.check_space(1 << 60)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("refused", ["", "parts", "parts/step=8", "failures"])
def test_a_folder_that_is_not_writable_is_told_before_the_start(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    folder.publish(UNIT, TABLE, {})
    folder.record_failure(Failure(4, "OSError", "first"))
    before = sorted(folder.path.rglob("*"))
    folder.check_writable()
    assert sorted(folder.path.rglob("*")) == before
    make_read_only(monkeypatch, folder.path / refused)
    with pytest.raises(WriteError, match=r"cannot write .*/run.*: Read-only .*; give .* `out`"):
        folder.check_writable()


def test_what_is_finished_can_be_looked_at_where_nothing_can_be_removed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    folder.forget_failure(8)
    folder.record_failure(Failure(4, "OSError", "first"))
    with pytest.raises(OSError, match="Read-only"):
        folder.forget_failure(4)


FULL = """
import resource, signal, sys
import numpy as np, pyarrow as pa
from pathlib import Path
from pythia_fast.metrics import Perplexity
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.plan import Unit
from pythia_fast.errors import WriteError
folder = RunFolder(Path(sys.argv[1]), {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
random = np.random.default_rng(0).random(10_000)
try:
    folder.publish(Unit(0, Perplexity(), 0, 1, np.arange(3)), pa.table({"x": random}), {})
except WriteError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(run)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert resource.RLIMIT_FSIZE is not None
    assert [path.name for path in run.rglob("*") if path.is_file()] == ["run.json"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*/file is a file, not a folder"):
        RunFolder(tmp_path / "file" / "run", {})


def test_a_run_that_another_writer_just_began_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunFolder(tmp_path / "run", {"model": "x"})
    reads: list[Path] = []

    def late(path: Path) -> dict | None:
        reads.append(path)
        return None if len(reads) == 1 else read_run(path)

    monkeypatch.setattr("pythia_fast.runs.folder.run_folder.read_run", late)
    assert RunFolder(tmp_path / "run", {"model": "x"}).hash == first.hash


@pytest.mark.parametrize("name", ["run:1", "with space", "é☃", "surrogate\udcff"])
def test_odd_names_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Arrow would take the first for an address, if it were given the name."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path(name), {"model": "x"})
    folder.publish(UNIT, TABLE, {"step": 8})
    assert folder.provenance(UNIT) == {"step": 8}
    assert folder.table(UNIT).equals(TABLE)


@pytest.mark.parametrize("other", [{"run": "other"}, {"step": 4}, {"metric": "memorization"}, {}])
def test_a_part_from_elsewhere_is_not_taken(folder: RunFolder, other: dict) -> None:
    of_unit = {"run": folder.hash, "step": 8, "metric": "perplexity"} if other else {}
    folder.publish(UNIT, TABLE, of_unit | other)
    with pytest.raises(FormatError, match="computes it again"):
        folder.origin(UNIT)


@pytest.mark.parametrize("specification", ["", ', "specification": []', ', "specification": {}'])
def test_a_run_json_without_its_specification_is_told(tmp_path: Path, specification: str) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "hash": "0"' + specification + "}")
    with pytest.raises(FormatError):
        pythia_fast.SweepResult(tmp_path)


def test_what_is_no_step_is_left_alone(folder: RunFolder) -> None:
    for name in ("step=foo", "step=1 (copy)", "step=01", "step=8"):
        (folder.path / "parts" / name).mkdir(parents=True)
    assert [step for step, _ in numbered(folder.path / "parts")] == [8]
    assert numbered(folder.path / "nothing") == []


def test_a_home_folder_is_meant_by_a_tilde(
    small_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert small_sweep(out="~/run", steps=[0]).path == tmp_path / "run"
    assert len(pythia_fast.SweepResult("~/run")) == 1


def gone_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_broken_part_hides_no_other(folder: RunFolder) -> None:
    assert folder.first_origin() is None
    (folder.path / "parts/step=0").mkdir(parents=True)
    (folder.path / "parts/step=0/perplexity-00000.parquet").write_bytes(b"none")
    assert folder.first_origin() is None
    folder.publish(UNIT, TABLE, {"run": folder.hash, "source": "there"})
    assert folder.first_origin() == {"run": folder.hash, "source": "there"}


def test_what_killed_processes_have_left_is_removed_by_the_next(
    folder: RunFolder, tmp_path: Path
) -> None:
    folder.publish(UNIT, TABLE, {})
    folder.record_failure(Failure(3, "E", "m"))
    folder.keep("commits/step=8.json", b"{}")
    folder.keep("samples/step=8/a.jsonl", b"{}")
    dead, alive = gone_process(), os.getpid()
    places = ("", "parts/step=8", "failures", "commits", "samples/step=8")
    for place in places:
        for writer in (dead, alive):
            (folder.path / place / f".a.json.{writer}-00ff.partial").write_text("half")
    (folder.path / "parts/step=9").symlink_to(tmp_path)
    elsewhere = tmp_path / f".b.{dead}-00ff.partial"
    elsewhere.write_text("somebody else's")
    RunFolder(folder.path, read_run(folder.path)["specification"])
    for place in places:
        left = [path.name for path in (folder.path / place).glob(".*")]
        assert left == [f".a.json.{alive}-00ff.partial"]
    assert elsewhere.exists()


def test_a_half_written_file_that_another_machine_removes_is_written_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There this process looks like a killed one."""
    link, removed = os.link, []

    def late(source: Path, target: Path, **options: bool) -> None:
        if len(removed) < 2:
            removed.append(source)
            source.unlink()
        link(source, target, **options)

    monkeypatch.setattr(os, "link", late)
    folder.publish(UNIT, TABLE, {})
    assert folder.done(UNIT)
    assert len(removed) == 2

    def always(source: Path, target: Path, **options: bool) -> None:
        source.unlink()
        link(source, target, **options)

    monkeypatch.setattr(os, "link", always)
    with pytest.raises(WriteError, match="No such file"):
        folder.publish(replace(UNIT, step=9), TABLE, {})


def test_a_file_that_is_kept_stays_what_it_was(folder: RunFolder) -> None:
    path = folder.keep("commits/step=1.json", b"first")
    assert folder.keep("commits/step=1.json", b"second") == path
    assert path.read_bytes() == b"first"
