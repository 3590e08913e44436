"""A sparse mirror: what is asked for is there, what is there is right, whatever happened before."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import HubError, TruncatedFileError, WriteError
from pythia_fast.hub.files import HubFile
from pythia_fast.tokens.remote import mirror as module
from pythia_fast.tokens.remote.mirror import BLOCK_BYTES, Mirror

SIZES = (5 * BLOCK_BYTES + 17, 1, 0, 3 * BLOCK_BYTES, 40 * BLOCK_BYTES - 1)
RANDOM = np.random.default_rng(0)
CONTENT = tuple(RANDOM.integers(0, 256, size, np.uint8).tobytes() for size in SIZES)
FILES = tuple(HubFile(f"sub/{number}.bin", size, None) for number, size in enumerate(SIZES))


class Source:
    """Gives ranges of CONTENT and remembers which."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def __call__(self, number: int, begin: int, end: int) -> bytes:
        assert 0 <= begin < end <= SIZES[number]
        self.asked.append((number, begin, end))
        return CONTENT[number][begin:end]

    @property
    def nbytes(self) -> int:
        return sum(end - begin for _, begin, end in self.asked)


def refuse(number: int, begin: int, end: int) -> bytes:
    raise HubError(f"file {number} [{begin}, {end}) is asked for")


def make(folder: Path, fetch: Callable[[int, int, int], bytes]) -> Mirror:
    return Mirror(folder, FILES, "0.blocks", fetch)


def need(mirror: Mirror, number: int, begin: int, end: int) -> None:
    mirror.need(mirror.blocks(number, begin, end))
    assert mirror.read(number, begin, end) == CONTENT[number][begin:end]
    assert mirror.path(number).read_bytes()[begin:end] == CONTENT[number][begin:end]


def test_files_have_their_sizes_and_take_no_space(tmp_path: Path) -> None:
    huge = (HubFile("a.idx", 2**40, None), HubFile("b.bin", 3 * 10**10, None))
    Mirror(tmp_path, huge, "a.blocks", refuse)
    assert [(tmp_path / file.path).stat().st_size for file in huge] == [2**40, 3 * 10**10]
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 < 2**20


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_ranges_in_any_order(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    folder = tmp_path_factory.mktemp("mirror")
    source = Source()
    mirror = make(folder, source)
    wanted = [np.zeros(-(-size // BLOCK_BYTES), dtype=bool) for size in SIZES]
    for _ in range(data.draw(st.integers(1, 5))):
        number = data.draw(st.sampled_from([0, 1, 3, 4]))
        ends = st.integers(0, SIZES[number])
        pairs = data.draw(st.lists(st.tuples(ends, ends).map(sorted), max_size=6))
        begins, stops = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        mirror.need(mirror.blocks(number, begins, stops))
        for begin, end in pairs:
            assert mirror.read(number, begin, end) == CONTENT[number][begin:end]
            if end > begin:
                wanted[number][begin // BLOCK_BYTES : -(-end // BLOCK_BYTES)] = True
    needed = sum(int(blocks.sum()) for blocks in wanted) * BLOCK_BYTES
    fetched = source.nbytes
    assert fetched <= needed + len(source.asked) * BLOCK_BYTES * module.GAP_BLOCKS * 2
    again = make(folder, refuse)
    for number, blocks in enumerate(wanted):
        at = np.flatnonzero(blocks) * BLOCK_BYTES
        again.need(again.blocks(number, at, at + 1))


def test_ranges_through_several_files(tmp_path: Path) -> None:
    size = BLOCK_BYTES + 3
    files = [HubFile("x.idx", 9, None)] + [HubFile(f"{n}.bin", size, None) for n in range(4)]
    whole = RANDOM.integers(0, 256, 4 * size, np.uint8).tobytes()
    mirror = Mirror(
        tmp_path, files, "x.blocks", lambda n, begin, end: whole[(n - 1) * size :][begin:end]
    )
    begins = np.array([0, size - 1, size, 5, 7])
    ends = np.array([1, size + 1, 2 * size, 4 * size, 7])
    for begin, end in zip(begins, ends, strict=True):
        spans = mirror.blocks_through(1, np.array([begin]), np.array([end]), size)
        expected = [
            block
            for n in range(4)
            for block in range(2)
            if max(begin, n * size + block * BLOCK_BYTES)
            < min(end, n * size + min((block + 1) * BLOCK_BYTES, size))
        ]
        assert int((spans[:, 1] - spans[:, 0]).sum()) == len(expected)
        mirror.need(spans)
        joined = b"".join(mirror.path(n).read_bytes() for n in range(1, 5))
        assert joined[begin:end] == whole[begin:end]


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    source = Source()
    mirror = make(tmp_path, source)
    need(mirror, 4, 100, 200)
    assert source.asked == [(4, 0, BLOCK_BYTES)]
    need(mirror, 4, 100, 200)
    need(mirror, 4, 0, BLOCK_BYTES)
    need(make(tmp_path, refuse), 4, 100, 200)
    assert len(source.asked) == 1
    need(mirror, 4, 0, BLOCK_BYTES + 1)
    assert source.asked[1:] == [(4, BLOCK_BYTES, 2 * BLOCK_BYTES)]
    with pytest.raises(HubError, match="is asked for"):
        need(make(tmp_path, refuse), 4, 0, 2 * BLOCK_BYTES + 1)


def test_much_is_asked_for_in_pieces_and_little_is_joined(tmp_path: Path) -> None:
    source = Source()
    mirror = make(tmp_path, source)
    at = np.array([0, 2, 4, 30]) * BLOCK_BYTES
    mirror.need(mirror.blocks(4, at, at + 1))
    asked = sorted(source.asked)  # by several threads
    assert asked == [(4, 0, 5 * BLOCK_BYTES), (4, 30 * BLOCK_BYTES, 31 * BLOCK_BYTES)]
    source.asked.clear()
    mirror.need(mirror.blocks(4, 5 * BLOCK_BYTES, 30 * BLOCK_BYTES))
    low = module.PIECE_BLOCKS[0] * BLOCK_BYTES
    assert sorted(end - begin for _, begin, end in source.asked) == [BLOCK_BYTES, low, low, low]


@pytest.mark.parametrize("damage", ["bit", "hole", "record"])
def test_damage_on_disk_is_found_and_mended(tmp_path: Path, damage: str) -> None:
    need(make(tmp_path, Source()), 0, 0, SIZES[0])
    path = tmp_path / ("0.blocks" if damage == "record" else FILES[0].path)
    with path.open("r+b") as file:
        at = {"bit": BLOCK_BYTES + 5, "hole": 0, "record": 8 * 2 + 1}[damage]
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes(BLOCK_BYTES) if damage == "hole" else bytes([byte ^ 4]))
    with pytest.raises(HubError, match="is asked for"):
        need(make(tmp_path, refuse), 0, 0, SIZES[0])
    source = Source()
    need(make(tmp_path, source), 0, 0, SIZES[0])
    block = {"bit": 1, "hole": 0, "record": 2}[damage]
    assert source.asked == [(0, block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)]
    need(make(tmp_path, refuse), 0, 0, SIZES[0])


def test_a_record_moved_to_another_block_is_none(tmp_path: Path) -> None:
    need(make(tmp_path, Source()), 4, 0, SIZES[4])
    record = tmp_path / "0.blocks"
    entries = np.fromfile(record, "<u8")
    first = sum(-(-size // BLOCK_BYTES) for size in SIZES[:4])
    assert (entries[first:] != 0).all()
    assert (entries[:first] == 0).all()
    with (tmp_path / FILES[4].path).open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(CONTENT[4][:BLOCK_BYTES])
    entries[first + 1] = entries[first]
    entries.tofile(record)
    source = Source()
    need(make(tmp_path, source), 4, 0, SIZES[4])
    assert source.asked == [(4, BLOCK_BYTES, 2 * BLOCK_BYTES)]


def test_forgetting(tmp_path: Path) -> None:
    source = Source()
    mirror = make(tmp_path, source)
    need(mirror, 0, 0, SIZES[0])
    mirror.forget(mirror.blocks(0, 0, 1))
    need(mirror, 0, 0, SIZES[0])
    assert source.asked[-1] == (0, 0, BLOCK_BYTES)


def test_one_failure_does_not_lose_the_rest(tmp_path: Path) -> None:
    source = Source()

    def fetch(number: int, begin: int, end: int) -> bytes:
        if begin == 30 * BLOCK_BYTES:
            raise HubError("not this one")
        return source(number, begin, end)

    mirror = make(tmp_path, fetch)
    at = np.array([0, 10, 20, 30]) * BLOCK_BYTES
    with pytest.raises(HubError, match="not this one"):
        mirror.need(mirror.blocks(4, at, at + 1))
    kept = make(tmp_path, refuse)
    for _, begin, end in source.asked:
        kept.need(kept.blocks(4, begin, end))
    with pytest.raises(HubError):
        kept.need(kept.blocks(4, at, at + 1))


def test_an_interrupt_keeps_what_came_and_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def fetch(number: int, begin: int, end: int) -> bytes:
        if begin == 0:
            go_on.wait()
        return CONTENT[number][begin:end]

    def interrupted(batch: Sequence[Future[object]], return_when: str) -> None:
        batch[1].result()
        raise KeyboardInterrupt

    mirror = make(tmp_path, fetch)
    spans = mirror.blocks(4, np.array([0, 10]) * BLOCK_BYTES, np.array([0, 10]) * BLOCK_BYTES + 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mirror.need(spans)
    need(make(tmp_path, refuse), 4, 10 * BLOCK_BYTES, 11 * BLOCK_BYTES)
    with pytest.raises(HubError):
        need(make(tmp_path, refuse), 4, 0, 1)
    go_on.set()
    mirror.need(spans)


def test_an_answer_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    mirror = make(tmp_path, lambda *_: b"short")
    with pytest.raises(HubError, match="got 5 of 65536 bytes from 0 on"):
        need(mirror, 0, 0, 1)


def test_data_is_on_disk_before_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write, sync = module.write_all, os.fdatasync

    def write_all(descriptor: int, path: Path, begin: int, data: memoryview) -> None:
        done.append(f"write {path.name}")
        write(descriptor, path, begin, data)

    def fdatasync(descriptor: int) -> None:
        done.append("sync")
        sync(descriptor)

    monkeypatch.setattr(module, "write_all", write_all)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    mirror = make(tmp_path, Source())
    mirror.need(np.concatenate([mirror.blocks(0, 0, 1), mirror.blocks(3, 0, 1)]))
    assert sorted(done[:2]) == ["write 0.bin", "write 3.bin"]
    assert done[2:] == ["sync", "sync", "write 0.blocks", "write 0.blocks"]


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    mirror = make(tmp_path, Source())

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(WriteError, match=r"cannot write .*0\.bin: No space left"):
            need(mirror, 0, 0, 1)
    with pytest.raises(HubError):
        need(make(tmp_path, refuse), 0, 0, 1)
    need(mirror, 0, 0, 1)


def test_a_disk_that_is_too_small_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    mirror = make(tmp_path, source)
    system = SimpleNamespace(f_bavail=10 * BLOCK_BYTES // 512, f_frsize=512)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: system)
    with pytest.raises(WriteError, match="GB are free") as caught:
        need(mirror, 4, 0, SIZES[4])
    assert caught.value.errno == errno.ENOSPC
    assert not source.asked
    need(mirror, 4, 0, 10 * BLOCK_BYTES)


def test_what_cannot_be_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/1.bin").write_bytes(b"two")
    with pytest.raises(HubError, match="has 3 bytes where 1 belong"):
        make(tmp_path, refuse)
    (tmp_path / "sub/1.bin").unlink()
    (tmp_path / "sub/1.bin").symlink_to("/etc/hostname")
    with pytest.raises(WriteError, match=r"1\.bin"):
        make(tmp_path, refuse)
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="is a file, not a folder"):
        make(tmp_path / "file", refuse)


def test_a_read_only_cache_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(make(tmp_path, Source()), 0, 0, 1)
    system = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return system(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    mirror = make(tmp_path, Source())
    need(mirror, 0, 0, 1)
    with pytest.raises(WriteError, match=r"0\.bin"):
        need(mirror, 0, 0, SIZES[0])
    with pytest.raises(WriteError, match="Read-only"):
        make(tmp_path / "new", refuse)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    need(make(tmp_path, Source()), 0, 0, SIZES[0])
    mirror = make(tmp_path, refuse)
    os.truncate(tmp_path / FILES[0].path, BLOCK_BYTES + 1)
    with pytest.raises(TruncatedFileError) as caught:
        need(mirror, 0, 0, SIZES[0])
    assert caught.value.offset == BLOCK_BYTES + 1


def test_files_that_were_replaced_are_noticed(tmp_path: Path) -> None:
    mirror = make(tmp_path, Source())
    assert mirror.is_in_place()
    (tmp_path / FILES[3].path).unlink()
    assert not mirror.is_in_place()
    (tmp_path / FILES[3].path).write_bytes(bytes(SIZES[3]))
    assert not mirror.is_in_place()
    need(mirror, 0, 0, 1)  # goes on with the files it has


def test_threads_share_a_mirror(tmp_path: Path) -> None:
    source = Source()
    mirror = make(tmp_path, source)
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            start.wait()
            for at in range(0, SIZES[4], 3 * BLOCK_BYTES):
                need(mirror, 4, at, min(at + BLOCK_BYTES, SIZES[4]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(source.asked) == len(set(source.asked)) == 14, "a block is fetched by one of them"


CHILD = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from pythia_fast.hub.files import HubFile
from pythia_fast.tokens.remote.mirror import Mirror

remote, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
data = remote.read_bytes()
mirror = Mirror(folder, [HubFile("x.bin", len(data), None)], "x.blocks",
                lambda number, begin, end: data[begin:end])
for at in np.random.default_rng(seed).permutation(len(data) // 2**16).tolist():
    mirror.need(np.array([[at, at + 1]]))
    assert mirror.read(0, at << 16, at + 1 << 16) == data[at << 16 : at + 1 << 16]
    print(at, flush=True)
"""


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    (tmp_path / "remote").write_bytes(
        RANDOM.integers(0, 256, 256 * BLOCK_BYTES, np.uint8).tobytes()
    )
    return tmp_path / "remote"


def start_child(remote: Path, folder: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(remote), str(folder), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )


def recorded(remote: Path, folder: Path) -> int:
    """How many blocks are recorded; each must be right."""
    data = remote.read_bytes()
    mirror = Mirror(folder, [HubFile("x.bin", len(data), None)], "x.blocks", refuse)
    entries = np.fromfile(folder / "x.blocks", "<u8")
    for block in np.flatnonzero(entries).tolist():
        mirror.need(np.array([[block, block + 1]]))
        begin, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
        assert mirror.read(0, begin, end) == data[begin:end]
    return int(np.count_nonzero(entries))


def test_processes_share_a_folder(tmp_path: Path, remote: Path) -> None:
    children = [start_child(remote, tmp_path / "mirror", seed) for seed in range(2)]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    assert recorded(remote, tmp_path / "mirror") == 256


def test_sigkill_leaves_nothing_wrong(tmp_path: Path, remote: Path) -> None:
    before = 0
    for seed in range(4):
        with start_child(remote, tmp_path / "mirror", seed) as child:
            assert child.stdout is not None
            for _ in range(5 + 40 * seed):
                if not child.stdout.readline():
                    break
            child.send_signal(signal.SIGKILL)
        kept = recorded(remote, tmp_path / "mirror")
        assert kept >= max(before, 5 + 40 * seed)
        before = kept


def test_a_fork_in_the_middle_does_not_hang_the_child(tmp_path: Path) -> None:
    """Another thread may be fetching while this one forks, as a DataLoader does."""
    fetching, go_on = threading.Event(), threading.Event()

    def fetch(number: int, begin: int, end: int) -> bytes:
        fetching.set()
        go_on.wait()
        return CONTENT[number][begin:end]

    mirror = make(tmp_path, fetch)
    thread = threading.Thread(target=need, args=(mirror, 0, 0, 1))
    thread.start()
    fetching.wait()
    assert mirror._lock().locked()
    mirror._fetching = (os.getpid() + 1, mirror._fetching[1])  # as if this were the child
    assert not mirror._lock().locked()
    go_on.set()
    thread.join()
