"""assemble: whole or not there, and what a kill, a full disk or Ctrl-C leaves is gone on with."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pythia_fast.errors import ReadError, TruncatedFileError, WorkInterruptedError, WriteError
from pythia_fast.tokens.assembling import assembly, flusher, parts
from pythia_fast.tokens.assembling.assembly import assemble
from pythia_fast.tokens.assembling.parts import Part, Target

SIZES = (5000, 5000, 1234)
RECORD = ".record.json"


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(assembly, "CHUNK_BYTES", 700)
    monkeypatch.setattr(flusher, "FLUSH_BYTES", 1500)


@pytest.fixture
def sources(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        (folder / str(number)).write_bytes(random.bytes(size))
    return [folder / str(number) for number in range(len(SIZES))]


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def joined(out, sources):
    """All sources as one file, and a second one from their middles."""
    whole = tuple(Part(path, 0, path.stat().st_size) for path in sources)
    return [
        Target(out / "whole", whole),
        Target(out / "parts", tuple(Part(path, 10, 1000) for path in sources)),
    ]


def expected(sources):
    data = [path.read_bytes() for path in sources]
    return {"whole": b"".join(data), "parts": b"".join(each[10:1010] for each in data)}


def found(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def partial(out, name):
    """The file in the making that is to get a name."""
    (path,) = out.glob(f".{name}.*.partial")
    return path


def names(out):
    return sorted(path.name for path in out.iterdir())


def stop_at(nbytes, error):
    """A progress that raises once so much is done."""

    def progress(done, total):
        if done >= nbytes:
            raise error

    return progress


def test_files_are_made_of_their_parts(sources, out):
    told = []
    done = assemble(
        joined(out, sources), out / RECORD, progress=lambda *numbers: told.append(numbers)
    )
    assert found(out) == expected(sources)
    total = sum(SIZES) + 3000
    assert (done.total_bytes, done.resumed_bytes) == (total, 0)
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert [each for each, _ in told] == sorted({each for each, _ in told})


def test_empty_files(sources, out):
    (sources[0]).write_bytes(b"")
    targets = [Target(out / "a", (Part(sources[0], 0, 0),)), Target(out / "b", ())]
    assert assemble(targets, out / RECORD).total_bytes == 0
    assert found(out) == {"a": b"", "b": b""}


@pytest.mark.parametrize("nbytes", range(0, 14_300, 650))
def test_what_was_interrupted_goes_on_and_has_no_name_before(sources, out, nbytes):
    targets = joined(out, sources)
    with pytest.raises(WorkInterruptedError, match="the same command goes on") as caught:
        assemble(targets, out / RECORD, progress=stop_at(nbytes, KeyboardInterrupt()))
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not {"whole", "parts"} & set(names(out))
    told = []
    done = assemble(targets, out / RECORD, progress=lambda each, _: told.append(each))
    assert done.resumed_bytes == told[0]
    assert nbytes - 1400 <= done.resumed_bytes <= nbytes + 1400
    assert found(out) == expected(sources)


KILLED = """
import os, signal, sys
from pathlib import Path
from pythia_fast.tokens.assembling import assembly
from pythia_fast.tokens.assembling import flusher
from pythia_fast.tokens.assembling.assembly import assemble
from pythia_fast.tokens.assembling.parts import Part, Target

assembly.CHUNK_BYTES, flusher.FLUSH_BYTES = 700, 1500
folder, out, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sources = [folder / str(number) for number in range(3)]
whole = tuple(Part(path, 0, path.stat().st_size) for path in sources)
parts = tuple(Part(path, 10, 1000) for path in sources)
targets = [Target(out / "whole", whole), Target(out / "parts", parts)]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment in ("link", "linked"):
    real = os.link
    def link(path, name, **options):
        if name.name == "parts":
            die()
        real(path, name, **options)
        if moment == "linked" and name.name == "whole":  # which has two names then
            die()
    os.link = link
    progress = None
elif moment == "record":
    unlink = Path.unlink
    Path.unlink = lambda path, **o: die() if path.name == ".record.json" else unlink(path, **o)
    progress = None
else:
    progress = lambda done, _: die() if done >= int(moment) else None
assemble(targets, out / ".record.json", progress=progress)
"""


@pytest.mark.parametrize("moment", ["0", "700", "4000", "12000", "link", "linked", "record"])
def test_a_kill_at_any_moment_leaves_what_gives_the_same_bytes(sources, out, moment):
    command = [sys.executable, "-c", KILLED, str(sources[0].parent), str(out), moment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name in {"whole", "parts"} & set(names(out)):
        assert (out / name).read_bytes() == expected(sources)[name]
    made = assemble(joined(out, sources), out / RECORD)
    assert found(out) == expected(sources)
    if not moment.isdigit():
        assert made.resumed_bytes == made.total_bytes
    elif int(moment) > 3000:
        assert made.resumed_bytes > 0


def test_only_what_the_record_says_is_trusted(sources, out):
    targets = joined(out, sources)
    with pytest.raises(WorkInterruptedError):
        assemble(targets, out / RECORD, progress=stop_at(8000, KeyboardInterrupt()))
    record = json.loads((out / RECORD).read_bytes())
    record["done_bytes"] = 3000
    (out / RECORD).write_text(json.dumps(record))
    with partial(out, "whole").open("r+b") as file:  # as if the disk had lost it
        file.seek(3000)
        file.write(b"x" * 5000)
    assert assemble(targets, out / RECORD).resumed_bytes == 3000
    assert found(out) == expected(sources)


@pytest.mark.parametrize("change", ["gone", "short", "a link"])
def test_a_partial_file_that_is_not_what_it_was_is_made_anew(sources, out, change, tmp_path):
    targets = joined(out, sources)
    with pytest.raises(WorkInterruptedError):
        assemble(targets, out / RECORD, progress=stop_at(12_000, KeyboardInterrupt()))
    unfinished = partial(out, "whole")
    if change == "short":
        os.truncate(unfinished, 4000)
    else:
        unfinished.unlink()
    if change == "a link":
        (tmp_path / "theirs").write_bytes(b"theirs")
        unfinished.symlink_to(tmp_path / "theirs")
        with pytest.raises(WriteError, match="symbolic links"):
            assemble(targets, out / RECORD)
        assert (tmp_path / "theirs").read_bytes() == b"theirs"
        return
    assert assemble(targets, out / RECORD).resumed_bytes == 0
    assert found(out) == expected(sources)


def test_what_lies_there_without_a_record_is_not_used(sources, out):
    with sources[1].open("r+b") as file:  # a hole, which is not written
        file.truncate(0)
        file.truncate(SIZES[1])
    strange = out / ".whole.0123456789abcdef.partial"
    strange.write_bytes(b"x" * sum(SIZES))
    targets = joined(out, sources)
    assert assemble(targets, out / RECORD).resumed_bytes == 0
    strange.unlink()
    assert found(out) == expected(sources)


def test_a_full_disk_in_the_middle_keeps_what_was_done(sources, out, monkeypatch):
    real = assembly.copy_range
    calls = []

    def copy_range(*arguments):
        calls.append(arguments)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    targets = joined(out, sources)
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "copy_range", copy_range)
        with pytest.raises(WriteError, match="No space left") as caught:
            assemble(targets, out / RECORD)
    assert caught.value.errno == errno.ENOSPC
    assert "the same command goes on" in str(caught.value)
    assert not {"whole", "parts"} & set(names(out))
    assert assemble(targets, out / RECORD).resumed_bytes == 6 * 700
    assert found(out) == expected(sources)


def test_a_disk_that_fails_late_is_told_and_not_believed(sources, out, monkeypatch):
    """fsync is where a system says that what was written before is lost."""
    real = os.fsync
    calls = []

    def fsync(file):
        if os.fstat(file).st_size == sum(SIZES):
            calls.append(file)
            if len(calls) == 3:
                raise OSError(errno.EIO, "Input/output error")
        real(file)

    targets = joined(out, sources)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(WriteError, match="Input/output"):
            assemble(targets, out / RECORD)
    made = assemble(targets, out / RECORD)
    assert 3000 <= made.resumed_bytes <= 5600
    assert found(out) == expected(sources)


def test_room_is_asked_for_before_anything_is_written(sources, out, monkeypatch):
    real = os.statvfs

    class Full:
        f_bavail, f_frsize, f_bsize = 3, 4096, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full if path == out else real(path))
    with pytest.raises(WriteError, match=r"GB free, but .* to be written") as caught:
        assemble(joined(out, sources), out / RECORD)
    assert caught.value.errno == errno.ENOSPC
    assert names(out) == []


def test_what_shares_its_blocks_needs_no_room(sources, out, monkeypatch):
    """Of a whole file of 5000 bytes one block of 4096 can be shared."""

    class Scarce:
        f_bavail, f_frsize = sum(SIZES) + 3000 - 4096, 1

    targets = joined(out, sources)
    monkeypatch.setattr(os, "statvfs", lambda _: Scarce)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "clone", lambda *_: False)
        with pytest.raises(WriteError, match="GB free"):
            assemble(targets, out / RECORD)
    monkeypatch.setattr(parts, "clone", lambda *_: True)
    assemble(targets, out / RECORD)
    assert found(out) == expected(sources)


@pytest.mark.parametrize("taken", ["whole", "parts"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_name_that_is_taken_is_refused_at_once(sources, out, taken, kind):
    if kind == "file":
        (out / taken).write_bytes(b"theirs")
    else:
        (out / taken).symlink_to("nowhere")
    with pytest.raises(WriteError, match="is there already") as caught:
        assemble(joined(out, sources), out / RECORD)
    assert caught.value.errno == errno.EEXIST
    assert names(out) == [taken]


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(sources, out):
    targets = joined(out, sources)

    def progress(done, total):
        if done == total:
            (out / "parts").write_bytes(b"theirs")

    with pytest.raises(WriteError, match="is there already"):
        assemble(targets, out / RECORD, progress=progress)
    assert (out / "parts").read_bytes() == b"theirs"
    (out / "parts").unlink()
    assemble(targets, out / RECORD)
    assert found(out) == expected(sources)


@pytest.mark.parametrize("change", ["time", "size", "parts", "no record", "nonsense"])
def test_what_another_attempt_has_left_is_not_mixed_up(sources, out, change):
    targets = joined(out, sources)
    with pytest.raises(WorkInterruptedError):
        assemble(targets, out / RECORD, progress=stop_at(8000, KeyboardInterrupt()))
    if change == "time":
        os.utime(sources[1], ns=(0, 12345))
    elif change == "size":
        sources[1].write_bytes(bytes(6000))
    elif change == "parts":
        targets = [Target(out / "whole", targets[0].parts[::-1]), targets[1]]
    elif change == "no record":
        (out / RECORD).write_text('{"done_bytes": 5}')
    else:
        (out / RECORD).write_text("{")
    with pytest.raises(WriteError, match="another attempt") as caught:
        assemble(targets, out / RECORD)
    assert caught.value.errno == errno.EEXIST
    done = assemble(targets, out / RECORD, resume=False)
    assert done.resumed_bytes == 0
    whole = b"".join(part.path.read_bytes()[: part.nbytes] for part in targets[0].parts)
    assert (out / "whole").read_bytes() == whole
    assert names(out) == ["parts", "whole"]


def test_a_source_that_changes_meanwhile_is_told(sources, out):
    targets = joined(out, sources)

    def progress(done, _):
        if done > 6000:
            os.utime(sources[0], ns=(0, 12345))

    with pytest.raises(ReadError, match="has changed meanwhile"):
        assemble(targets, out / RECORD, progress=progress)
    assert not {"whole", "parts"} & set(names(out))


def test_a_source_that_shrinks_meanwhile_is_told(sources, out):
    targets = joined(out, sources)
    with pytest.raises(TruncatedFileError, match="the file ends here"):
        assemble(
            targets,
            out / RECORD,
            progress=lambda done, _: done > 2000 and os.truncate(sources[1], 7),
        )
    assert not {"whole", "parts"} & set(names(out))


def test_sources_that_cannot_be_read(sources, out):
    targets = joined(out, sources)
    with pytest.raises(ReadError, match="no regular file"):
        assemble([Target(out / "a", (Part(out, 0, 0),))], out / RECORD)
    with pytest.raises(ReadError, match="cannot read"):
        assemble(targets, out / RECORD, progress=lambda done, _: sources[1].unlink(missing_ok=True))
    with pytest.raises(ReadError, match="cannot read"):
        assemble(targets, out / RECORD)


def test_a_folder_that_cannot_be_written(sources, tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(WriteError, match="No such file"):
        assemble(joined(missing, sources), missing / RECORD)


def test_a_partial_file_that_others_change_is_found_by_its_size(sources, out):
    targets = joined(out, sources)

    def progress(done, total):
        if done == total:
            os.truncate(partial(out, "whole"), 5)

    with pytest.raises(WriteError, match="something else writes to it"):
        assemble(targets, out / RECORD, progress=progress)


def test_a_file_system_without_links(sources, out, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assemble(joined(out, sources), out / RECORD)
    assert found(out) == expected(sources)


def test_two_that_make_the_same_at_once_do_no_harm(sources, out):
    """The second begins and ends while the first is at work."""
    targets = joined(out, sources)
    others = []

    def progress(done, _):
        if done > 5000 and not others:
            others.append(assemble(targets, out / RECORD))
            assert found(out) == expected(sources)

    with pytest.raises(WriteError):
        assemble(targets, out / RECORD, progress=progress)
    assert others[0].resumed_bytes >= 1500
    assert {name: (out / name).read_bytes() for name in expected(sources)} == expected(sources)


def test_one_that_begins_when_another_has_just_begun_goes_on_with_its_record(
    sources, out, monkeypatch
):
    targets = joined(out, sources)
    real = assembly.link
    before = []

    def link(path, name):
        if not before:
            before.append(name)
            with pytest.raises(WorkInterruptedError):
                assemble(targets, out / RECORD, progress=stop_at(5000, KeyboardInterrupt()))
        real(path, name)

    monkeypatch.setattr(assembly, "link", link)
    assert assemble(targets, out / RECORD).resumed_bytes >= 3500
    assert before == [out / RECORD]
    assert found(out) == expected(sources)


def test_two_that_make_something_else_are_kept_apart(sources, out):
    """The second discards what the first has left, which is still at work."""
    targets = joined(out, sources)
    others = [Target(target.path, target.parts[::-1]) for target in targets]
    second = []

    def progress(done, _):
        if done > 5000 and not second:
            second.append(1)
            with pytest.raises(WorkInterruptedError):
                assemble(
                    others,
                    out / RECORD,
                    resume=False,
                    progress=stop_at(8000, KeyboardInterrupt()),
                )

    with pytest.raises(WriteError):  # its files are gone
        assemble(targets, out / RECORD, progress=progress)
    assert not {"whole", "parts"} & set(names(out))
    with contextlib.suppress(WriteError):  # whose record was kept last is of no matter
        assemble(others, out / RECORD)
        assert (out / "whole").read_bytes() == b"".join(path.read_bytes() for path in sources[::-1])
        return
    assemble(targets, out / RECORD)
    assert {name: (out / name).read_bytes() for name in expected(sources)} == expected(sources)


def test_sizes_beyond_32_bits(tmp_path, out, monkeypatch):
    """Three files of 2^31 bytes and more, nearly all of it holes."""
    monkeypatch.setattr(assembly, "CHUNK_BYTES", 1 << 28)
    monkeypatch.setattr(flusher, "FLUSH_BYTES", 1 << 30)
    size = (1 << 31) + 5
    sources = [Path(tmp_path / f"source{number}") for number in range(3)]
    for number, path in enumerate(sources):
        with path.open("xb") as file:
            file.truncate(size)
            for at in (0, size // 2, size - 3):
                file.seek(at)
                file.write(bytes([65 + number] * 3))
    whole = Target(out / "whole", tuple(Part(path, 0, size) for path in sources))
    done = assemble([whole], out / RECORD)
    assert done.total_bytes == 3 * size > 1 << 32
    with (out / "whole").open("rb") as file:
        for number in range(3):
            for at in (0, size // 2, size - 3):
                file.seek(number * size + at)
                assert file.read(3) == bytes([65 + number] * 3)
    back = Target(out / "back", (Part(out / "whole", 2 * size - 3, size - 5),))
    assemble([back], out / RECORD)
    with (out / "back").open("rb") as file:
        assert file.read(6) == b"BBBCCC"
        file.seek(size // 2 + 3)
        assert file.read(3) == b"CCC"


def test_an_interrupt_while_waiting_for_the_disk_is_no_failure_of_it(tmp_path, monkeypatch):
    kept = []
    with (tmp_path / "file").open("wb") as file, flusher.Flusher(kept.append, 0) as flushing:
        file.write(b"12345")
        flushing.note(file.fileno(), 5, 5)
        flushing.flush()
        pending = flushing._pending
        interrupted = SimpleNamespace(result=lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        monkeypatch.setattr(flushing, "_pending", interrupted)
        with pytest.raises(KeyboardInterrupt):
            flushing.wait()
        monkeypatch.setattr(flushing, "_pending", pending)
        flushing.note(file.fileno(), 9, 4)
        flushing.flush()
    assert kept == [5, 9]
