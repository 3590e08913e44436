"""The first training sequences of Pythia's own corpora, by range from the Hub: 2 MB, not 600 GB.

The preshuffled sets hold rows of 2049 uint16 in training order: 2048 inputs and the shifted label.
"""

import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
import stamina
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own

from pythia_fast.cache import cache_folder
from pythia_fast.errors import ArgumentError, HubError, WriteError

REPOSITORIES = {
    "pile-standard": "EleutherAI/pile-standard-pythia-preshuffled",
    "pile-deduped": "EleutherAI/pile-deduped-pythia-preshuffled",
}
FIRST_SHARD = "document-00000-of-00020.bin"
FIRST_SHARD_BYTES = 30_000_000_000
ROW_TOKENS = 2049
ROW_BYTES = 2 * ROW_TOKENS
_ATTEMPTS = 4
_UNREACHED = (OSError, HTTPError)
"""What the Hub's client raises; a connection that fails is no OSError there."""


def first_rows(
    corpus: str,
    count: int,
    *,
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> npt.NDArray[np.uint16]:
    """The first `count` sequences that every model trained on `corpus` saw, [count, 2049] uint16.

    Read once and then kept in the cache, by the data set's commit. ArgumentError for an unknown
    corpus or more rows than the first shard holds; HubError if the Hub does not answer, or with
    something else than was asked for; WriteError if the cache cannot be written.
    """
    if corpus not in REPOSITORIES:
        raise ArgumentError(f"no corpus {corpus!r}; there are {', '.join(REPOSITORIES)}")
    if not 0 < count <= FIRST_SHARD_BYTES // ROW_BYTES:
        raise ArgumentError(
            f"1 to {FIRST_SHARD_BYTES // ROW_BYTES:,} sequences can be read from the Hub, not "
            f"{count}: for more, download the data and give its prefix as `tokens`"
        )
    repository = REPOSITORIES[corpus]
    try:
        commit = _commit(repository, endpoint)
        path = cache_folder(cache_dir) / "tokens" / f"{corpus}-{commit[:16]}-{count}.npy"
        if path.exists():
            return _checked(np.load(path, allow_pickle=False), count)
        data = _read(repository, commit, count * ROW_BYTES, endpoint)
    except HubError:
        raise
    except _UNREACHED as error:
        raise HubError(f"cannot read {FIRST_SHARD} of {repository}: {error}") from error
    if len(data) != count * ROW_BYTES:
        raise HubError(
            f"{FIRST_SHARD} of {repository}: asked for {count * ROW_BYTES} bytes, got {len(data)}"
        )
    rows = np.frombuffer(data, "<u2").reshape(count, ROW_TOKENS)
    _keep(path, rows)
    return rows


@stamina.retry(on=_UNREACHED, attempts=_ATTEMPTS, timeout=60)
def _commit(repository: str, endpoint: str | None) -> str:
    commit = HfApi(endpoint=endpoint).dataset_info(repository).sha
    if not commit:
        raise HubError(f"the Hub names no commit of {repository}")
    return commit


@stamina.retry(on=_UNREACHED, attempts=_ATTEMPTS, timeout=300)
def _read(repository: str, commit: str, nbytes: int, endpoint: str | None) -> bytes:
    files = HfFileSystem(endpoint=endpoint, skip_instance_cache=True)
    path = f"datasets/{repository}@{commit}/{FIRST_SHARD}"
    with files.open(path, "rb", cache_type="none") as file:  # other caches read ahead
        return bytes(file.read(nbytes))


def _checked(rows: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.uint16]:
    if rows.dtype != np.uint16 or rows.shape != (count, ROW_TOKENS):
        raise HubError(f"the cached rows are {rows.dtype} {rows.shape}: remove them from the cache")
    return rows


def _keep(path: Path, rows: npt.NDArray[np.uint16]) -> None:
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.save(temporary, rows)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(error.errno, f"cannot keep {path}: {error.strerror or error}") from error
