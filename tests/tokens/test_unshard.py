"""unshard and shard against concatenation, and each against the other."""

import importlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, MissingTokensError, TokenFileError, WriteError
from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.assembling.assembly import Assembled
from pythia_fast.tokens.shards import SHARD_BYTES, shard, unshard


@pytest.fixture
def tokens(tmp_path):
    """Rows of many lengths, 22,750 bytes."""
    random = np.random.default_rng(0)
    rows = [random.integers(0, 50_000, length) for length in random.integers(0, 200, 120)]
    write_tokens(tmp_path / "document", rows)
    return tmp_path / "document"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_shards_are_named_as_published_and_come_back_the_same(tokens, tmp_path):
    whole = tokens.with_suffix(".bin").read_bytes()
    cut = shard(tokens, tmp_path / "shards", shard_bytes=7001)
    assert names(tmp_path / "shards") == [
        *(f"document-0000{number}-of-00003.bin" for number in range(4)),
        "document.idx",
    ]
    assert [path.read_bytes() for path in cut.bins] == [
        whole[begin : begin + 7001] for begin in range(0, len(whole), 7001)
    ]
    index = tokens.with_suffix(".idx").read_bytes()
    assert cut.index.read_bytes() == index
    assert cut.total_bytes == len(whole) + len(index)
    back = unshard(tmp_path / "shards", tmp_path / "again")
    assert back.bins == (tmp_path / "again.bin",)
    assert (tmp_path / "again.bin").read_bytes() == whole
    assert (tmp_path / "again.idx").read_bytes() == index
    assert [row.tolist() for row in TokenDataset(tmp_path / "again")] == [
        row.tolist() for row in TokenDataset(tokens)
    ]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tokens=st.integers(0, 150), first=st.integers(1, 320), second=st.integers(1, 320))
def test_any_size_of_shards(tmp_path_factory, monkeypatch, tokens, first, second):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # most of the time that this takes
    folder = tmp_path_factory.mktemp("data")
    write_tokens(folder / "a", [np.random.default_rng(tokens).integers(0, 65_536, tokens)])
    whole = (folder / "a.bin").read_bytes()
    source = folder / "a"
    for number, size in enumerate((first, second)):  # the second time out of the first's shards
        cut = shard(source, folder / str(number), shard_bytes=size)
        parts = [path.read_bytes() for path in cut.bins]
        assert parts == [whole[at : at + size] for at in range(0, max(1, len(whole)), size)]
        source = folder / str(number)
    unshard(source, folder / "b.bin")
    assert (folder / "b.bin").read_bytes() == whole
    assert names(folder) == ["0", "1", "a.bin", "a.idx", "b.bin", "b.idx"]


@pytest.mark.parametrize(
    ("out", "made"),
    [("new", "new.bin"), ("new.idx", "new.bin"), ("folder", "folder/document.bin")],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_where_the_whole_goes(tokens, tmp_path, out, made, as_text):
    shard(tokens, tmp_path / "shards", shard_bytes=9000)
    (tmp_path / "folder").mkdir()
    place = tmp_path / out
    assert unshard(tmp_path / "shards", str(place) if as_text else place).bins[0] == tmp_path / made
    assert unshard(tmp_path / "shards", f"{tmp_path}/more/new/").bins[0].parts[-3:] == (
        *("more", "new"),
        "document.bin",
    )


def test_not_beside_the_shards(tokens, tmp_path):
    shards = tmp_path / "shards"
    shard(tokens, shards, shard_bytes=9000)
    before = names(shards)
    for out in (shards, f"{shards}/", shards / "document", shards / "other.bin"):
        with pytest.raises(ArgumentError, match="beside its shards"):
            unshard(shards, out)
    assert names(shards) == before
    with pytest.raises(WriteError, match="is there already"):
        shard(tokens, shards, shard_bytes=9000)


def test_data_on_the_hub_is_downloaded_first(tmp_path):
    for work in (unshard, shard):
        with pytest.raises(ArgumentError, match="download them first"):
            work("hub:pile-deduped", tmp_path / "out")


def test_shards_that_are_not_those_of_the_index(tokens, tmp_path):
    shard(tokens, tmp_path / "shards", shard_bytes=7001)
    last = tmp_path / "shards" / "document-00003-of-00003.bin"
    good = last.read_bytes()
    for wrong in (good[:-10], good + b"xx"):
        last.write_bytes(wrong)
        with pytest.raises(TokenFileError, match=r"document\.idx"):
            unshard(tmp_path / "shards", tmp_path / "again")
    last.unlink()
    with pytest.raises(MissingTokensError, match="with NNNNN 00003"):
        unshard(tmp_path / "shards", tmp_path / "again")
    assert not list(tmp_path.glob("*again*"))
    bin_ = tokens.with_suffix(".bin")
    bin_.write_bytes(bin_.read_bytes()[:-2])
    with pytest.raises(TokenFileError, match=r"document\.bin"):
        shard(tokens, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_arguments_that_are_none(tokens, tmp_path):
    with pytest.raises(ArgumentError, match="positive"):
        shard(tokens, tmp_path / "shards", shard_bytes=0)
    with pytest.raises(MissingTokensError, match="no token data"):
        shard(tmp_path / "nothing", tmp_path / "shards")
    with pytest.raises(MissingTokensError, match="no token data"):
        unshard(tmp_path / "nothing", tmp_path / "again")
    with pytest.raises(ArgumentError, match="in one piece already"):
        unshard(tokens, tmp_path / "again")
    write_tokens(tmp_path / "large", np.zeros((1, 50_001), np.uint16))
    with pytest.raises(ArgumentError, match="100,002 of them; names hold 100,000"):
        shard(tmp_path / "large", tmp_path / "shards", shard_bytes=1)
    with pytest.raises(WriteError, match="cannot write"):
        shard(tokens, tmp_path / "large.bin" / "shards")
    shard(tokens, tmp_path / "shards")
    with pytest.raises(WriteError, match="cannot write"):
        unshard(tmp_path / "shards", tmp_path / ("x" * 300))


def test_a_file_of_the_published_size_is_cut_as_published(index_bytes, tmp_path):
    """83 shards of 5·10^9 bytes and a shorter one, as of the deduplicated Pile; never written."""
    lengths = [2**31 - 1] * 96
    size = 2 * sum(lengths)
    assert 82 * SHARD_BYTES < size < 83 * SHARD_BYTES
    (tmp_path / "pile.idx").write_bytes(index_bytes(lengths, 2))
    with (tmp_path / "pile.bin").open("xb") as file:
        file.truncate(size)
    plans = []

    def assemble(targets, *_, **__):
        plans.extend(targets)
        return Assembled(size, 0, 0)

    module = importlib.import_module("pythia_fast.tokens.shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "assemble", assemble)
        shard(tmp_path / "pile", tmp_path / "out")
    *plans, index = plans
    assert index.path.name == "pile.idx"
    assert [plan.path.name for plan in plans] == [
        f"pile-000{number:02}-of-00082.bin" for number in range(83)
    ]
    assert [part.offset for plan in plans for part in plan.parts] == [
        number * 5_000_000_000 for number in range(83)
    ]
    assert [plan.nbytes for plan in plans] == [SHARD_BYTES] * 82 + [size - 82 * SHARD_BYTES]
