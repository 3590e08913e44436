"""Token data that stays on the Hub but for what was asked for.

A data set is opened at a commit that is pinned then. Of its `.idx` and `.bin` only the index's
header and ends are fetched, and later what the rows asked for need; all of it is kept, and read by
the same native code as a local pair. What was fetched once is there without a network.

The Hub promises a sha256 of whole files only, so a range cannot be verified against it, but for
its length. A file of up to 64 MiB, be it an index or a shard, is verified as soon as all of it is
there, and fetched afresh once if it is not what the Hub lists; larger ones that are wholly there
when `TokenDataset.verify` is called. On disk every block has a checksum, which a process looks at
before it first uses the block.
"""

import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import huggingface_hub.constants
import numpy as np
import numpy.typing as npt
from huggingface_hub import HfApi

from pythia_fast.cache import cache_folder
from pythia_fast.core import TokenStore
from pythia_fast.errors import HubError, MissingTokensError, ReadError, TokenFileError
from pythia_fast.hub.asking import COMMIT, LIBRARY, ask
from pythia_fast.hub.body import STALL_S
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.publish import writing
from pythia_fast.tokens.remote.index import RemoteIndex
from pythia_fast.tokens.remote.listing import Address, Listing, token_files
from pythia_fast.tokens.remote.mirror import Mirror
from pythia_fast.tokens.remote.sparse import publish_text

LISTING = "listing.json"
_MAIN = "main"
_MOST = np.iinfo(np.int64).max

_log = logging.getLogger("pythia_fast")

Vector = npt.NDArray[np.int64]


class RemoteStore:
    """The rows of a data set on the Hub: a TokenStore that fetches before it reads.

    `address` is at a commit. `local` is the native store over what is on disk; before anything else
    than this class reads a row from it, `prepare` must have been called for that row. Threads may
    share it, and it may be forked. Besides TokenStore's errors there are HubError for what is not
    on disk and cannot be had, ChecksumError for a file that is complete and not what the Hub lists,
    and WriteError for what cannot be kept.
    """

    def __init__(
        self, listing: Listing, inside: str | None, folder: Path, *, endpoint: str
    ) -> None:
        index, bins = listing.pair(inside)
        self.address = Address(listing.repo, listing.commit, inside)
        self.folder = folder
        self._reader = RangeReader(
            *(listing.repo, listing.commit),
            endpoint=endpoint,
            repo_type="dataset",
            missing=MissingTokensError,
        )
        self._files = (index, *bins)
        self._shard_bytes = bins[0].size
        self._bin_bytes = sum(file.size for file in bins)
        self._mirror, self._index, self.local = self._open()
        self._index.learn(self.local, self._bin_bytes)
        self._item = np.dtype(self.local.dtype).itemsize

    def __len__(self) -> int:
        return len(self.local)

    def __repr__(self) -> str:
        return f"RemoteStore({str(self.address)!r}, {len(self)} rows)"

    @property
    def dtype(self) -> str:
        """The type of the ids: "uint16" and so on."""
        return self.local.dtype

    @property
    def documents(self) -> int | None:
        """How many documents the index speaks of."""
        return self.local.documents

    def lengths(self, rows: Vector, out: Vector) -> None:
        """Write the number of tokens of each row into `out`.

        Where the rows have one length this fetches nothing: see RemoteIndex.
        """
        self._index.lengths(rows, out)

    def gather(
        self,
        rows: Vector,
        start: int,
        stop: int,
        out: npt.NDArray[Any],
        threads: int,
    ) -> None:
        """As TokenStore's, once the columns of the rows are there."""
        self.prepare(rows, start, stop)
        self.local.gather(rows, start, stop, out, threads)

    def find_outside(self, rows: Vector, limit: int, threads: int) -> tuple[int, int, int] | None:
        """As TokenStore's, once the rows are there."""
        self.prepare(rows)
        return self.local.find_outside(rows, limit, threads)

    @property
    def bin_bytes(self) -> int:
        """The bytes that the rows take."""
        return self.local.bin_bytes

    def verify(self, threads: int) -> None:
        """Fetch the whole index, and check all of it, and the sha256 of each file that is there."""
        self._index.fetch_all()
        self._mirror.verify()
        self.local.verify(threads)

    def prepare(
        self,
        rows: Vector,
        start: int = 0,
        stop: int = _MOST,
        seen: Callable[[int], None] | None = None,
    ) -> None:
        """Have tokens [start, stop) of the rows, and what the index says of them, on disk.

        All that is absent is asked for at once, where the rows have one length; otherwise first the
        index. `seen` as in Mirror.need.
        """
        index_spans = self._index.spans(rows)
        expected = self._index.expected(rows)
        if expected is None:
            self._mirror.need(index_spans, seen)
            self._mirror.need(self._data_spans(*self._index.places(rows), start, stop), seen)
        else:
            data_spans = self._data_spans(*expected, start, stop)
            self._mirror.need(np.concatenate([index_spans, data_spans]), seen)
            self._index.places(rows)  # an error unless they are as expected

    def fetch(
        self, blocks: Callable[[], Iterable[Vector]], progress: Callable[[int, int], None]
    ) -> None:
        """Have rows on disk, some at a time; `blocks` gives them, each time it is called.

        `progress` is told of bytes that have come and of all that are to, one thread at a time; if
        nothing is absent, of nothing.
        """
        total = sum(map(self._absent_bytes, blocks()))
        done, lock = 0, threading.Lock()

        def seen(nbytes: int) -> None:
            nonlocal done
            with lock:
                done += nbytes
                progress(done, max(done, total))

        if total:
            progress(0, total)
        for rows in blocks():
            self.prepare(rows, seen=seen)

    def _absent_bytes(self, rows: Vector) -> int:
        """How much `prepare` will fetch for the rows, but for what is damaged.

        Of rows that a large index must tell apart, the index alone while that is absent.
        """
        index_spans = self._index.spans(rows)
        absent = self._mirror.absent_bytes(index_spans)
        expected = self._index.expected(rows)
        if expected is None:
            if absent:
                return absent
            expected = self._index.places(rows)
        return absent + self._mirror.absent_bytes(self._data_spans(*expected, 0, _MOST))

    def _data_spans(self, offset_n: Vector, length_n: Vector, start: int, stop: int) -> Vector:
        """The mirror's blocks of columns of rows at `offset_n` bytes, `length_n` tokens long."""
        first_n = np.minimum(start, length_n)
        last_n = np.minimum(stop, length_n)
        # Numbers that make no sense are refused by the native store; here they select nothing.
        begin_n = np.clip(offset_n + first_n * self._item, 0, self._bin_bytes)
        end_n = np.clip(offset_n + last_n * self._item, 0, self._bin_bytes)
        return self._mirror.blocks_through(1, begin_n, end_n, self._shard_bytes)

    def _open(self) -> tuple[Mirror, RemoteIndex, TokenStore]:
        while True:
            record = self._files[0].path + ".blocks"
            fetch = partial(_fetch, self._reader, self._files, self.folder)  # makes no cycle
            mirror = Mirror(self.folder, self._files, record, fetch)
            index = RemoteIndex(mirror, self._files[0], self.address)
            paths = [mirror.path(number) for number in range(len(self._files))]
            store = TokenStore(paths[0], paths[1:], "full" if index.is_whole else "quick")
            # Somebody may just have removed the folder: what is filled must be what is read.
            if mirror.is_in_place():
                break
        if len(paths) > 2 and store.bin_bytes != self._bin_bytes:
            raise TokenFileError(
                paths[0],
                f"its rows take {store.bin_bytes} bytes, but the {len(paths) - 1} shards have "
                f"{self._bin_bytes}: one or the other belongs to other data",
            )
        return mirror, index, store


@dataclass(frozen=True, slots=True)
class HubTokens:
    """Token data of the Hub at a commit; `str()` of it is an address that means the same for ever.

    Kept in `cache`, asked for at `endpoint`.
    """

    address: Address
    cache: Path
    endpoint: str

    def open(self) -> RemoteStore:
        """The rows. The errors are those of `pin`, but that nothing is asked of the Hub again."""
        home = _home(self.cache, self.address.repo)
        api = HfApi(endpoint=self.endpoint, library_name=LIBRARY)
        listing = _listing(self.address, api, home)
        folder = home / listing.commit
        return RemoteStore(listing, self.address.inside, folder, endpoint=self.endpoint)

    def __str__(self) -> str:
        return str(self.address)


def pin(
    source: str, cache_dir: str | Path | None = None, *, endpoint: str | None = None
) -> HubTokens:
    """A data set on the Hub, at the commit that its revision has now.

    `source` is as `Address.parse` takes it; `endpoint` None is the Hub's own (HF_ENDPOINT). If the
    Hub cannot be asked, it is the commit that was found when it last could.
    ArgumentError for what is no such name; MissingTokensError if there is no such data set, and on
    opening if there is no such pair or shard; TokenFileError then for sizes and an index that do
    not add up; HubError, WriteError.
    """
    address = Address.parse(source)
    api = HfApi(endpoint=endpoint, library_name=LIBRARY)
    cache = cache_folder(cache_dir).absolute()  # a pickle may be opened in another folder
    listing = _listing(address, api, _home(cache, address.repo))
    return HubTokens(replace(address, revision=listing.commit), cache, api.endpoint)


@dataclass(frozen=True, slots=True)
class CachedTokens:
    """What is kept of a data set at one commit; `disk_bytes` are those really taken."""

    repo: str
    commit: str
    path: Path
    disk_bytes: int

    def remove(self) -> None:
        """Remove it. Whoever has it open goes on with what is there and may fetch more."""
        gone = self.path.with_name(f".removed-{uuid.uuid4().hex}")
        with writing(self.path):
            self.path.rename(gone)  # at once: nobody may find half of it
            for path in self.path.parent.glob(".removed-*"):  # also what others did not finish
                shutil.rmtree(path, ignore_errors=path != gone)


def cached(cache_dir: str | Path | None = None) -> tuple[CachedTokens, ...]:
    """What is kept of data sets on the Hub, by repository and commit."""
    found = []
    for path in sorted((cache_folder(cache_dir) / "tokens").glob(f"*/*/*/{LISTING}")):
        folder = path.parent
        if COMMIT.fullmatch(folder.name):
            repo = "/".join(folder.parts[-3:-1])
            try:
                taken = sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))
            except OSError as error:
                raise ReadError.of(folder, error) from error
            found.append(CachedTokens(repo, folder.name, folder, taken))
    return tuple(found)


def _fetch(
    reader: RangeReader, files: Sequence[HubFile], folder: Path, number: int, begin: int, end: int
) -> bytearray:
    try:
        return reader.read(files[number], begin, end)
    except HubError as error:
        raise HubError(
            f"{error}. They are not in {folder} either, or not as they were written there"
        ) from error


def _home(cache: Path, repo: str) -> Path:
    return cache / "tokens" / repo


def _listing(address: Address, api: HfApi, home: Path) -> Listing:
    """The listing of the revision's commit: asked for, unless it is a commit that is known."""
    revision = address.revision or _MAIN
    known = home / "refs" / quote(revision, safe="")
    if COMMIT.fullmatch(revision) and (listing := _recalled(home, revision)) is not None:
        return listing
    try:
        listing = _asked(address.repo, revision, api)
    except HubError as error:
        remembered = _recalled(home, known.read_text()) if known.is_file() else None
        if remembered is None:
            raise
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            _log.warning(
                "%s; using commit %s, at which %s was before", error, remembered.commit, revision
            )
        return remembered
    # Only what is new: a cache that cannot be written serves what it has.
    if _recalled(home, listing.commit) != listing:
        publish_text(home / listing.commit / LISTING, listing.to_json())
    if not known.is_file() or known.read_text() != listing.commit:
        publish_text(known, listing.commit)
    return listing


def _asked(repo: str, revision: str, api: HfApi) -> Listing:
    request = partial(
        api.dataset_info, repo, revision=revision, files_metadata=True, timeout=STALL_S
    )
    what = f"its revision {revision}"
    info = ask(repo, what, request, endpoint=api.endpoint, missing=MissingTokensError)
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise HubError(f"{repo}: the Hub says that {revision} is at {info.sha!r}")
    entries = (
        (file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
    )
    return Listing(repo, info.sha, token_files(entries))


def _recalled(home: Path, commit: str) -> Listing | None:
    """The listing of a commit, if it was kept."""
    if not COMMIT.fullmatch(commit):
        return None
    try:
        listing = Listing.from_json((home / commit / LISTING).read_text())
    except (OSError, ValueError):  # it will be asked for again
        return None
    return listing if listing.commit == commit else None
