"""The first rows of a corpus, by range from a Hub on this machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import stamina

from pythia_fast.errors import ArgumentError, HubError, WriteError
from pythia_fast.testing import HubServer
from pythia_fast.tokens.pile import FIRST_SHARD, REPOSITORIES, ROW_BYTES, first_rows

ROWS = 40
REPOSITORY = f"datasets/{REPOSITORIES['pile-deduped']}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = np.random.default_rng(0).integers(0, 50_254, (ROWS, 2049), dtype=np.uint16)
    (folder / FIRST_SHARD).write_bytes(rows.tobytes())
    return folder


@pytest.fixture
def hub(data: Path) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: {"main": data}}, redirect=True) as server:
        yield server


def test_only_the_rows_asked_for_are_read(hub: HubServer, data: Path) -> None:
    rows = first_rows("pile-deduped", 3, endpoint=hub.url)
    whole = np.fromfile(data / FIRST_SHARD, np.uint16).reshape(ROWS, 2049)
    np.testing.assert_array_equal(rows, whole[:3])
    ranges = [r.range for r in hub.requests if r.method == "GET" and r.range]
    assert f"bytes=0-{3 * ROW_BYTES - 1}" in ranges


def test_the_second_time_nothing_is_read(hub: HubServer) -> None:
    first = first_rows("pile-deduped", 5, endpoint=hub.url)
    before = hub.count("resolve")
    np.testing.assert_array_equal(first_rows("pile-deduped", 5, endpoint=hub.url), first)
    assert hub.count("resolve") == before


def test_a_moved_branch_is_another_data_set(hub: HubServer, tmp_path: Path) -> None:
    first = first_rows("pile-deduped", 2, endpoint=hub.url)
    (tmp_path / FIRST_SHARD).write_bytes(np.zeros((ROWS, 2049), np.uint16).tobytes())
    hub.publish(REPOSITORY, "main", tmp_path)
    assert first.any()
    assert not first_rows("pile-deduped", 2, endpoint=hub.url).any()


def test_a_busy_hub_is_asked_again(hub: HubServer, data: Path) -> None:
    hub.fail("resolve", status=503)
    assert first_rows("pile-deduped", 1, endpoint=hub.url).shape == (1, 2049)


def test_too_few_bytes_are_an_error(hub: HubServer) -> None:
    with pytest.raises(HubError, match="asked for"):
        first_rows("pile-deduped", ROWS + 1, endpoint=hub.url)


def test_a_hub_without_the_data_set_is_an_error(hub: HubServer) -> None:
    with pytest.raises(HubError, match="cannot read"):
        first_rows("pile-standard", 1, endpoint=hub.url)


def test_no_server_at_all_is_an_error() -> None:
    stamina.set_testing(True, attempts=2)
    try:
        with pytest.raises(HubError, match="cannot read"):
            first_rows("pile-deduped", 1, endpoint="http://127.0.0.1:9")
    finally:
        stamina.set_testing(False)


def test_a_cache_that_cannot_be_written_is_an_error(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot keep"):
        first_rows("pile-deduped", 1, endpoint=hub.url, cache_dir=tmp_path / "file")


@pytest.mark.parametrize(
    ("corpus", "count"), [("c4", 1), ("pile-deduped", 0), ("pile-deduped", 10**8)]
)
def test_bad_arguments(corpus: str, count: int) -> None:
    with pytest.raises(ArgumentError):
        first_rows(corpus, count)
