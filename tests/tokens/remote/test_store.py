"""Token data from a Hub on this machine, row by row, against numpy on the files that it serves."""

import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import (
    ArgumentError,
    ChecksumError,
    HubError,
    MissingTokensError,
    RowIndexError,
    TokenFileError,
    TokenRangeError,
    WriteError,
)
from pythia_fast.testing import HubServer
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.remote import index as remote_index
from pythia_fast.tokens.remote import mirror
from pythia_fast.tokens.remote import store as remote_tokens
from pythia_fast.tokens.remote.mirror import BLOCK_BYTES, Mirror
from pythia_fast.tokens.remote.pile import REPOSITORIES
from pythia_fast.tokens.remote.store import cached, pin

REPO = "me/tokens"
NAME = f"hub:{REPO}"
CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
Index = Callable[..., bytes]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As many attempts as ever, with no pause between them."""
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


def write(folder: Path, index: bytes, data: bytes, shard_bytes: int) -> Path:
    """A set of shards as the Hub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "document.idx").write_bytes(index)
    parts = [data[at : at + shard_bytes] for at in range(0, len(data), shard_bytes)] or [b""]
    for number, part in enumerate(parts):
        (folder / f"document-{number:05}-of-{len(parts) - 1:05}.bin").write_bytes(part)
    return folder


def use(hub: HubServer, patch: pytest.MonkeyPatch) -> None:
    """The Hub is this one from now on, as HF_ENDPOINT would make it."""
    files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    patch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[HubServer], None]:
    """`use` for the rest of a test."""
    return lambda hub: use(hub, monkeypatch)


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As HF_HUB_OFFLINE=1 would have it."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


ROWS, COLUMNS = 3000, 129
IDS = np.random.default_rng(0).integers(0, 50_254, (ROWS, COLUMNS), dtype=np.uint16)
SHARD_BYTES = 299_999
"""Not a multiple of a row, nor of an id, nor of a block."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, index_bytes: Index) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write(folder, index_bytes([COLUMNS] * ROWS, 2), IDS.tobytes(), SHARD_BYTES)


@pytest.fixture
def hub(data: Path, at: Callable[[HubServer], None]) -> Iterator[HubServer]:
    with HubServer({f"datasets/{REPO}": {"main": data}}, redirect=True) as server:
        at(server)
        yield server


def fetched(hub: HubServer) -> int:
    """How many bytes of files were asked for."""
    total = 0
    for request in hub.requests:
        if request.status == 206 and request.range:
            begin, end = request.range.removeprefix("bytes=").split("-")
            total += int(end) + 1 - int(begin)
    return total


def test_rows_are_those_of_the_files(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    assert len(remote) == ROWS
    assert remote.dtype == "uint16"
    assert remote.source.startswith(f"{NAME}@")
    assert remote.is_remote
    assert (remote._store.documents, remote._store.bin_bytes) == (1, IDS.nbytes)
    assert repr(remote._store) == f"RemoteStore({remote.source!r}, {ROWS} rows)"
    rows = [0, 1, 2999, -1, 1162, 1163, 1163, 7]
    np.testing.assert_array_equal(remote.gather(rows, dtype=np.uint16), IDS[rows])
    np.testing.assert_array_equal(remote[5:2990:71], IDS[5:2990:71])
    np.testing.assert_array_equal(remote[1162], IDS[1162])
    np.testing.assert_array_equal(remote.gather([9, 4], columns=slice(3, 20)), IDS[[9, 4], 3:20])
    assert remote.lengths.tolist() == [COLUMNS] * ROWS
    with pytest.raises(RowIndexError):
        remote[ROWS]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_rows_of_any_shape_through_any_shards(
    tmp_path_factory: pytest.TempPathFactory, index_bytes: Index, data
) -> None:
    code = data.draw(st.sampled_from(sorted(CODES)))
    dtype = np.dtype(CODES[code])
    low, high = data.draw(st.sampled_from([(0, 60), (0, 0), (5, 5), (40, 40)]))
    lengths = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=60))
    ids = np.random.default_rng(0).integers(0, 127, sum(lengths), dtype=dtype)
    shard_bytes = data.draw(st.integers(max(1, ids.nbytes // 12), max(1, ids.nbytes)))
    block_bytes = data.draw(st.sampled_from([8, 64, 256, BLOCK_BYTES]))
    folder = tmp_path_factory.mktemp("any")
    index = index_bytes(lengths, dtype.itemsize, code=code)
    write(folder / "data", index, ids.tobytes(), shard_bytes)
    bounds = np.cumsum([0, *lengths])
    chosen = st.lists(st.integers(0, len(lengths) - 1), max_size=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "BLOCK_BYTES", block_bytes)
        patch.setattr(remote_index, "WHOLE_INDEX_BYTES", data.draw(st.sampled_from([0, 2**26])))
        with HubServer({f"datasets/{REPO}": {"main": folder / "data"}}) as hub:
            use(hub, patch)
            remote = TokenDataset(NAME, cache_dir=folder / "cache")
            assert len(remote) == len(lengths)
            for rows in data.draw(st.lists(chosen, max_size=3)):
                start = data.draw(st.integers(0, 5))
                part = remote.gather(rows, columns=slice(start, start + 7))
                for row, found in zip(rows, part, strict=True):
                    expected = ids[bounds[row] : bounds[row + 1]][start : start + 7]
                    np.testing.assert_array_equal(found[: len(expected)], expected)
                    assert not found[len(expected) :].any()
                assert remote.lengths_of(rows).tolist() == [lengths[row] for row in rows]
            whole = remote.fingerprint()
            assert whole == TokenDataset(folder / "data" / "document").fingerprint()
            remote.verify()


class TestLikeTheTruePile:
    """The sizes of the real data set, in files with holes: 600 GB that take some kilobytes."""

    ROWS, LENGTH = 146_432_000, 2049
    SHARD, LAST_SHARD = 30_000_000_000, 78_336_000
    STRADDLING = SHARD // (2 * LENGTH)
    SOME = (0, 1, 511, 512, STRADDLING - 1, STRADDLING, STRADDLING + 1, 10**8, ROWS - 1)

    @staticmethod
    def ids(row: int) -> np.ndarray:
        return np.random.default_rng(row).integers(
            1, 50_254, TestLikeTheTruePile.LENGTH, dtype=np.uint16
        )

    @staticmethod
    def put(path: Path, offset: int, data: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("pile")
        shards = [folder / f"document-{n:05}-of-00020.bin" for n in range(21)]
        for path in shards:
            path.touch()
            os.truncate(path, cls.LAST_SHARD if path is shards[-1] else cls.SHARD)
        with (folder / "document.idx").open("wb") as index:
            index.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, cls.ROWS, 1))
            index.truncate(1_757_184_042)
            for row in cls.SOME:
                for each in {row, min(row + 1, cls.ROWS - 1)}:
                    index.seek(34 + 4 * each)
                    index.write(struct.pack("<i", cls.LENGTH))
                    index.seek(34 + 4 * cls.ROWS + 8 * each)
                    index.write(struct.pack("<q", each * 2 * cls.LENGTH))
        for row in cls.SOME:
            number, offset = divmod(2 * cls.LENGTH * row, cls.SHARD)
            data = cls.ids(row).tobytes()
            here, next_one = data[: cls.SHARD - offset], data[cls.SHARD - offset :]
            cls.put(shards[number], offset, here)
            if next_one:
                cls.put(shards[number + 1], 0, next_one)
        return folder

    @pytest.fixture
    def hub(self, folder: Path, at: Callable[[HubServer], None]) -> Iterator[HubServer]:
        digests = {path.name: f"{number:064}" for number, path in enumerate(folder.iterdir())}
        repository = f"datasets/{REPOSITORIES['pile-deduped']}"
        with HubServer({repository: {"main": folder}}, redirect=True, sha256=digests) as server:
            at(server)
            yield server

    def test_rows_of_all_places(self, hub: HubServer) -> None:
        pile = TokenDataset("hub:pile-deduped")
        assert len(pile) == self.ROWS
        found = pile.gather(self.SOME, dtype=np.uint16)
        for row, ids in zip(self.SOME, found, strict=True):
            np.testing.assert_array_equal(ids, self.ids(row))
        assert fetched(hub) < 40 * BLOCK_BYTES

    def test_lengths_are_known_without_the_index(self, hub: HubServer) -> None:
        pile = TokenDataset("hub:pile-deduped")
        before = fetched(hub)
        assert (pile.lengths_of(slice(10**7, 2 * 10**7)) == self.LENGTH).all()
        assert fetched(hub) == before < 8 * BLOCK_BYTES
        with pytest.raises(RowIndexError, match="row 146432000"):
            pile.lengths_of([self.ROWS])
        with pytest.raises(RowIndexError, match="row 146432000 of"):
            pile._store.lengths(np.array([self.ROWS]), np.empty(1, np.int64))

    def test_a_row_that_is_otherwise_is_an_error(self, hub: HubServer) -> None:
        """Where the index has a hole, a sequence has 0 tokens."""
        pile = TokenDataset("hub:pile-deduped")
        with pytest.raises(TokenFileError, match="sequence 70000"):
            pile[70_000]

    def test_one_request_waits_for_another_only_where_it_must(
        self, hub: HubServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waves: list[int] = []
        fetch = Mirror._fetch

        def counted(mirror: Mirror, pieces: Sequence[object], *more: object) -> None:
            waves.append(len(pieces))
            fetch(mirror, pieces, *more)

        monkeypatch.setattr(Mirror, "_fetch", counted)
        pile = TokenDataset("hub:pile-deduped")
        assert waves == [5], "the ends of the index, where sizes end, and where else they might"
        pile.gather(self.SOME[:3])
        pile.gather([10**8])
        assert waves[1:] == [2, 3], "what the index says comes with the tokens"


def test_only_what_is_needed_is_fetched(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    index = 34 + 12 * ROWS + 8
    assert fetched(hub) <= index
    remote.gather(range(200))
    assert index + 200 * 258 <= fetched(hub) <= index + 200 * 258 + BLOCK_BYTES
    before = hub.requests
    remote.gather(range(200))
    remote.check_ids(50_254, range(10, 90))
    remote.fingerprint(range(50))
    assert hub.requests == before


def test_what_is_asked_of_some_rows_fetches_these(hub: HubServer, data: Path) -> None:
    remote, local = TokenDataset(NAME), TokenDataset(data / "document")
    before = fetched(hub)
    some = [2000, 2001]
    assert remote.fingerprint(some) == local.fingerprint(some)
    assert fetched(hub) - before <= 2 * BLOCK_BYTES
    with pytest.raises(TokenRangeError) as caught:
        remote.check_ids(int(IDS[2500].max()), [2500])
    assert caught.value.sequence == 2500
    assert fetched(hub) - before <= 4 * BLOCK_BYTES


def test_offline_what_was_read_is_there(hub: HubServer, go_offline: Callable[[], None]) -> None:
    TokenDataset(NAME).gather(range(100))
    go_offline()
    before = len(hub.requests)
    remote = TokenDataset(NAME)
    np.testing.assert_array_equal(remote[:100], IDS[:100])
    with pytest.raises(HubError, match=r"bytes \d+ to \d+ of document-0000.*offline.*not in"):
        remote[2000]
    assert len(hub.requests) == before
    np.testing.assert_array_equal(remote[:100], IDS[:100])


def test_offline_without_having_been_there(hub: HubServer, go_offline: Callable[[], None]) -> None:
    go_offline()
    with pytest.raises(HubError, match=r"its revision main could not be had.*offline"):
        TokenDataset(NAME)


def test_a_server_that_is_gone(
    hub: HubServer, caplog: pytest.LogCaptureFixture, at: Callable[[HubServer], None]
) -> None:
    remote = TokenDataset(NAME)
    remote.gather([3])
    hub.__exit__(None, None, None)
    again = TokenDataset(NAME)
    assert "using commit" in caplog.text
    for dataset in (remote, again):
        np.testing.assert_array_equal(dataset[3], IDS[3])
        with pytest.raises(HubError, match="ConnectError"):
            dataset[2000]
    hub.__enter__()
    at(hub)
    np.testing.assert_array_equal(TokenDataset(NAME)[2000], IDS[2000])


def test_damage_on_disk_is_mended_or_offline_an_error(
    hub: HubServer, go_offline: Callable[[], None]
) -> None:
    TokenDataset(NAME).gather([0])
    (kept,) = cached()

    def damage() -> None:
        with next(kept.path.glob("document-00000-*.bin")).open("r+b") as file:
            file.seek(100)
            file.write(b"\xff\xff\xff")

    damage()
    np.testing.assert_array_equal(TokenDataset(NAME)[0], IDS[0])
    damage()
    go_offline()
    with pytest.raises(HubError, match="or not as they were written"):
        TokenDataset(NAME)[0]


def other_data(tmp_path: Path, index_bytes: Index) -> Path:
    return write(tmp_path / "other", index_bytes([COLUMNS] * 5, 2), IDS[-5:].tobytes(), 1000)


def test_a_commit_is_kept_although_the_branch_moves(
    hub: HubServer, tmp_path: Path, index_bytes: Index
) -> None:
    remote = TokenDataset(NAME)
    hub.publish(f"datasets/{REPO}", "main", other_data(tmp_path, index_bytes))
    np.testing.assert_array_equal(remote[7], IDS[7])
    moved = TokenDataset(NAME)
    assert len(moved) == 5
    np.testing.assert_array_equal(moved[:], IDS[-5:])
    before = len(hub.requests)
    pinned = TokenDataset(remote.source)
    assert pinned.source == remote.source != moved.source
    np.testing.assert_array_equal(pinned[7], IDS[7])
    assert len(hub.requests) == before, "a commit that is known is not asked for"
    assert len(cached()) == 2


def test_a_pickle_means_the_same_commit(hub: HubServer, tmp_path: Path, index_bytes: Index) -> None:
    pickled = pickle.dumps(TokenDataset(NAME))
    hub.publish(f"datasets/{REPO}", "main", other_data(tmp_path, index_bytes))
    np.testing.assert_array_equal(pickle.loads(pickled)[ROWS - 1], IDS[ROWS - 1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the server has threads
def test_a_fork_reads_on(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    remote.gather([0])
    child = os.fork()
    if child == 0:  # the server lives in the parent
        try:
            same = np.array_equal(remote[[0, 2500]], IDS[[0, 2500]])
            os._exit(0 if same else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    before = len(hub.requests)
    np.testing.assert_array_equal(remote[2500], IDS[2500])
    assert len(hub.requests) == before, "the child has fetched it for both"


def test_threads_share_a_dataset(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    wrong: list[int] = []

    def read(seed: int) -> None:
        rows = np.random.default_rng(seed).integers(0, ROWS, 50).tolist()
        wrong.extend(row for row in rows if not np.array_equal(remote[row], IDS[row]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_processes_share_a_cache(hub: HubServer, tmp_path: Path, data: Path) -> None:
    program = f"""
import numpy as np, sys
from pythia_fast.tokens import TokenDataset

remote, local = TokenDataset({NAME!r}), TokenDataset({str(data / "document")!r})
for rows in np.random.default_rng(int(sys.argv[1])).integers(0, len(local), (40, 10)):
    assert (remote[rows] == local[rows]).all()
"""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "c")}
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(seed)], env=environment)
        for seed in range(2)
    ]
    assert [child.wait() for child in children] == [0, 0]


def test_an_index_that_is_not_what_the_hub_lists(hub: HubServer) -> None:
    hub.corrupt("document.idx")
    np.testing.assert_array_equal(TokenDataset(NAME)[0], IDS[0])
    (kept,) = cached()
    kept.remove()
    hub.corrupt("document.idx", times=2)
    with pytest.raises(ChecksumError, match=r"document\.idx does not have the sha256"):
        TokenDataset(NAME)


FIRST_SHARD = "document-00000-of-00002.bin"


def test_a_shard_that_arrives_changed_is_fetched_afresh(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    remote.gather([0])
    hub.corrupt(FIRST_SHARD)
    np.testing.assert_array_equal(remote[:], IDS)
    (kept,) = cached()
    assert len(list(kept.path.glob("*.verified"))) == 4
    asked = len(hub.requests)
    np.testing.assert_array_equal(TokenDataset(remote.source)[:], IDS)
    assert len(hub.requests) == asked


def test_a_shard_that_always_arrives_changed_is_an_error(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    for data in (remote, remote, TokenDataset(NAME)):
        hub.corrupt(FIRST_SHARD, times=2)
        with pytest.raises(ChecksumError, match=rf"{FIRST_SHARD} does not have the sha256"):
            data[:]
    np.testing.assert_array_equal(remote[:], IDS)


def test_verify_compares_large_files_that_are_here(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "VERIFIED_BYTES", 0)
    remote = TokenDataset(NAME)
    remote.gather([2999])
    remote.verify()  # nothing of what is partly here
    hub.corrupt(FIRST_SHARD)
    assert (remote[:] != IDS).any()
    remote.verify()
    np.testing.assert_array_equal(remote[:], IDS)
    (kept,) = cached()
    with (kept.path / FIRST_SHARD).open("r+b") as file:
        file.write(b"\xff\xff\xff")
    TokenDataset(NAME).verify()  # by its checksums it is mended
    np.testing.assert_array_equal(TokenDataset(NAME)[:], IDS)


def test_an_index_that_does_not_add_up(
    tmp_path: Path, index_bytes: Index, at: Callable[[HubServer], None]
) -> None:
    index = bytearray(index_bytes([4] * 8, 2))
    index[18] = 9
    write(tmp_path / "data", bytes(index), bytes(64), 50)
    with HubServer({f"datasets/{REPO}": {"main": tmp_path / "data"}}) as hub:
        at(hub)
        with pytest.raises(TokenFileError, match="9 sequences") as caught:
            TokenDataset(NAME)
        assert caught.value.offset == 18
        assert caught.value.path.name == "document.idx"


@pytest.mark.parametrize(("nbytes", "reason"), [(63, "needs 64"), (66, "64")])
def test_shards_that_do_not_fit_the_index(
    tmp_path: Path, index_bytes: Index, at: Callable[[HubServer], None], nbytes: int, reason: str
) -> None:
    write(tmp_path / "data", index_bytes([4] * 8, 2), bytes(nbytes), 50)
    with HubServer({f"datasets/{REPO}": {"main": tmp_path / "data"}}) as hub:
        at(hub)
        with pytest.raises(TokenFileError, match=reason):
            TokenDataset(NAME)


@pytest.fixture
def _ends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every index is treated as a large one."""
    monkeypatch.setattr(remote_index, "WHOLE_INDEX_BYTES", 0)


@pytest.mark.usefixtures("_ends_only")
def test_a_large_index_of_uneven_rows(
    tmp_path: Path,
    index_bytes: Index,
    at: Callable[[HubServer], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_index, "MOST_LENGTHS", 1000)
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 60_000)
    ids = random.integers(0, 1000, lengths.sum(), dtype=np.uint16)
    bounds = np.cumsum([0, *lengths])
    write(tmp_path / "data", index_bytes(lengths, 2), ids.tobytes(), 200_000)
    with HubServer({f"datasets/{REPO}": {"main": tmp_path / "data"}}) as hub:
        at(hub)
        remote = TokenDataset(NAME)
        assert fetched(hub) <= 7 * BLOCK_BYTES < 12 * 60_000
        for row in (0, 59_999, 30_000, 41_234):
            np.testing.assert_array_equal(remote[row], ids[bounds[row] : bounds[row + 1]])
        np.testing.assert_array_equal(
            remote.lengths_of(slice(20_000, 21_000)), lengths[20_000:21_000]
        )
        with pytest.raises(ArgumentError, match="at most 1,000 rows at a time"):
            _ = remote.lengths


@pytest.mark.usefixtures("_ends_only")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda index: index[:20], "within the header"),
        (lambda index: b"X" + index[1:], "no token index"),
        (lambda index: index[:18] + b"\x09" + index[19:], "9 sequences"),
        (lambda index: index[:17] + b"\x06" + index[18:], "floating-point"),
        (lambda index: index[: 34 + 4 * 8] + b"\x02" + index[34 + 4 * 8 + 1 :], "byte 2"),
        (lambda index: index[:34] + b"\xff" * 4 + index[38:], "-1 tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_large_index_that_does_not_add_up(
    tmp_path: Path,
    index_bytes: Index,
    at: Callable[[HubServer], None],
    change: Callable[[bytes], bytes],
    reason: str,
) -> None:
    write(tmp_path / "data", change(index_bytes([4] * 8, 2)), bytes(64), 50)
    with HubServer({f"datasets/{REPO}": {"main": tmp_path / "data"}}) as hub:
        at(hub)
        with pytest.raises(TokenFileError, match=reason):
            TokenDataset(NAME)


@pytest.mark.usefixtures("_ends_only")
def test_rows_that_only_seem_to_have_one_length(
    tmp_path: Path, index_bytes: Index, at: Callable[[HubServer], None]
) -> None:
    write(tmp_path / "data", index_bytes([4, 4, 3, 5, 4, 4], 2), bytes(range(48)), 100)
    with HubServer({f"datasets/{REPO}": {"main": tmp_path / "data"}}) as hub:
        at(hub)
        remote = TokenDataset(NAME)
        assert remote.lengths.tolist() == [4] * 6
        assert remote[1].view(np.uint8).reshape(4, 8)[:, :2].ravel().tolist() == list(range(8, 16))
        for row in (2, 3):
            with pytest.raises(TokenFileError, match="by its first and last one") as caught:
                remote[row]
            assert caught.value.offset == 34 + 4 * row


def test_what_is_kept_can_be_looked_at_and_removed(hub: HubServer) -> None:
    remote = TokenDataset(NAME)
    remote.gather(range(100))
    (kept,) = cached()
    assert (kept.repo, kept.path.name) == (REPO, kept.commit)
    assert 34 + 12 * ROWS < kept.disk_bytes < 6 * BLOCK_BYTES
    kept.remove()
    assert cached() == ()
    np.testing.assert_array_equal(remote[:3000:500], IDS[::500])
    again = TokenDataset(NAME)
    before = len(hub.requests)
    np.testing.assert_array_equal(again[0], IDS[0])
    assert len(hub.requests) > before
    kept.remove()
    with pytest.raises(WriteError):
        kept.remove()


def test_files_that_vanish_while_they_are_opened(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is filled is what is read, also if somebody removes the folder in between."""
    looks = iter([False, True])
    monkeypatch.setattr(Mirror, "is_in_place", lambda self: next(looks))
    np.testing.assert_array_equal(TokenDataset(NAME)[0], IDS[0])
    assert next(looks, None) is None


def test_a_cache_elsewhere_and_one_that_cannot_be(hub: HubServer, tmp_path: Path) -> None:
    remote = TokenDataset(NAME, cache_dir=tmp_path / "here")
    np.testing.assert_array_equal(remote[0], IDS[0])
    (kept,) = cached(tmp_path / "here")
    assert kept.path.is_relative_to(tmp_path / "here" / "tokens" / REPO)
    assert cached() == ()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="is a file, not a folder"):
        TokenDataset(NAME, cache_dir=tmp_path / "file")


def test_what_is_not_there(hub: HubServer) -> None:
    for source, reason in (
        ("hub:me/other", "me/other is not on the Hub"),
        (f"{NAME}@gone", "me/tokens: its revision gone is not on the Hub"),
        (f"{NAME}/nothing", "no token data at 'nothing'"),
    ):
        with pytest.raises(MissingTokensError, match=reason):
            TokenDataset(source)
    with pytest.raises(ArgumentError, match="no corpus 'c4'; there are pile-standard"):
        TokenDataset("hub:c4")
    with pytest.raises(ArgumentError, match="holds ids already"):
        TokenDataset(NAME, tokenizer="tokenizer.json")


def test_answers_that_make_no_sense(hub: HubServer) -> None:
    repository = hub._state.repositories[f"datasets/{REPO}"]
    original = repository.branches["main"]
    repository.branches["main"] = type(original)("../../etc", original.files)
    with pytest.raises(HubError, match=r"main is at '\.\./\.\./etc'"):
        TokenDataset(NAME)


def test_a_listing_that_was_damaged_is_asked_for_again(hub: HubServer) -> None:
    source = TokenDataset(NAME).source
    (kept,) = cached()
    (kept.path / "listing.json").write_text("{")
    np.testing.assert_array_equal(TokenDataset(source)[0], IDS[0])
    assert (kept.path / "listing.json").read_text() != "{"


def test_an_address_has_its_own_commit(hub: HubServer, tmp_path: Path) -> None:
    tokens = pin(NAME, tmp_path / "cache", endpoint=hub.url)
    assert (
        str(tokens) == f"{NAME}@{hub._state.repositories[f'datasets/{REPO}'].branches['main'].name}"
    )
    assert len(tokens.open()) == ROWS


def test_a_cache_that_is_up_to_date_is_not_written(hub: HubServer, monkeypatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise AssertionError(f"{path} is written")

    np.testing.assert_array_equal(TokenDataset(NAME)[:5], IDS[:5])
    monkeypatch.setattr(remote_tokens, "publish_text", refuse)
    np.testing.assert_array_equal(TokenDataset(NAME)[:5], IDS[:5])


def test_fetching_tells_what_has_come_of_what_is_to(hub: HubServer, data: Path) -> None:
    remote = TokenDataset(NAME)
    remote.gather(range(100))
    before = fetched(hub)
    told: list[tuple[int, int]] = []
    remote.fetch(range(1500), progress=lambda *far: told.append(far))
    came = fetched(hub) - before
    dones, totals = zip(*told, strict=True)
    assert dones[0] == 0
    assert list(dones) == sorted(dones)
    assert dones[-1] == came
    assert came <= totals[0] <= came + 3 * BLOCK_BYTES  # a file's last block is a part of one
    assert came + BLOCK_BYTES >= 1400 * 258
    before, told = len(hub.requests), []
    remote.fetch(range(1500), progress=lambda *far: told.append(far))
    remote.check_ids(50_254, range(1500))
    assert (len(hub.requests), told) == (before, [])
    TokenDataset(data / "document").fetch(progress=lambda *far: told.append(far))
    assert told == []


@pytest.mark.usefixtures("_ends_only")
def test_fetching_rows_of_a_large_index_of_uneven_rows(
    tmp_path: Path, at: Callable[[HubServer], None], index_bytes: Index
) -> None:
    lengths = [1 + row % 7 for row in range(20_000)]
    ids = np.arange(sum(lengths), dtype=np.uint16)
    folder = write(tmp_path / "data", index_bytes(lengths, 2), ids.tobytes(), 10**9)
    told: list[tuple[int, int]] = []
    with HubServer({f"datasets/{REPO}": {"main": folder}}, redirect=True) as server:
        at(server)
        TokenDataset(NAME).fetch(range(20_000), progress=lambda *far: told.append(far))
    assert told[-1][0] >= ids.nbytes
    assert all(done <= total for done, total in told)
