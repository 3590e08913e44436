"""A TokenDataset in other processes: pickled, forked, and in the workers of a DataLoader."""

import copy
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pythia_fast.errors import MissingTokensError, TokenFileError
from pythia_fast.tokens import TokenDataset

IDS = np.random.default_rng(0).integers(0, 50_254, (64, 33)).astype(np.uint16)


@pytest.fixture
def prefix(tmp_path, token_files):
    return token_files(tmp_path / "data", IDS)


def test_a_pickle_of_files_opens_them_again(prefix):
    data = TokenDataset(prefix)
    pickled = pickle.dumps(data)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again[:], IDS)
    assert (again.source, again.dtype) == (data.source, data.dtype)


def test_relative_paths_are_found_from_elsewhere(prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(prefix.parent)
    pickled = pickle.dumps(TokenDataset("data"))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickled)[:], IDS)


def test_shards_are_pickled_as_what_they_are(prefix):
    whole = prefix.with_suffix(".bin").read_bytes()
    prefix.with_name("data-00000-of-00001.bin").write_bytes(whole[:3001])
    prefix.with_name("data-00001-of-00001.bin").write_bytes(whole[3001:])
    prefix.with_suffix(".bin").unlink()
    data = pickle.loads(pickle.dumps(TokenDataset(prefix.parent)))
    np.testing.assert_array_equal(data[:], IDS)


def test_files_that_have_changed_in_size_are_refused(prefix):
    pickled = pickle.dumps(TokenDataset(prefix))
    with prefix.with_suffix(".bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(TokenFileError, match="4228 bytes, but had 4224") as caught:
        pickle.loads(pickled)
    assert caught.value.path == prefix.with_suffix(".bin")
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(MissingTokensError, match="every machine that is to read it needs it"):
        pickle.loads(pickled)


@pytest.mark.parametrize("dtype", ["u1", "i8", "u8", ">i4"])
def test_arrays_travel_by_value(dtype):
    ids = np.arange(60).reshape(6, 10).astype(dtype)
    data = TokenDataset(ids[::2])
    for again in (pickle.loads(pickle.dumps(data)), copy.copy(data), copy.deepcopy(data)):
        np.testing.assert_array_equal(again[:], ids[::2])
        assert (again.source, again.dtype) == (data.source, data.dtype)
        assert again.fingerprint() == data.fingerprint()


def test_texts_travel_as_their_ids(tokenizer_json):
    data = TokenDataset(["ab", "c"], tokenizer=tokenizer_json)
    again = pickle.loads(pickle.dumps(data))
    assert [row.tolist() for row in again] == [row.tolist() for row in data]
    assert again.source == "2 texts"


def test_a_forked_child_reads_on(prefix):
    data = TokenDataset(prefix)
    rows = np.tile(np.arange(64), 200)
    expected = data.gather(rows, threads=4)
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        same = np.array_equal(data.gather(rows, threads=4), expected)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(data.gather(rows, threads=4), expected)


# From Python 3.12 on a warning: every fork of a process with threads is one.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_data_loader(prefix, method):
    data = TokenDataset(prefix)
    assert data[0].any()  # the guard is installed before torch's own handlers are
    loader = DataLoader(
        data,
        batch_size=16,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    batches = list(loader)
    assert [batch.shape for batch in batches] == [(16, 33)] * 4
    assert torch.cat(batches).dtype == torch.int64
    np.testing.assert_array_equal(torch.cat(batches).numpy(), IDS)


class IntoArrays(TokenDataset):
    """Reads rows without asking for their lengths, and so for the files' sizes, before."""

    def __getitem__(self, row):
        return self.gather([row], out=np.empty((1, 33), dtype=np.int64))[0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_file_that_shrinks_under_a_worker(prefix):
    """Torch's workers have a SIGBUS handler of their own, put in the place of ours."""
    data = IntoArrays(prefix)
    assert data[0].any()
    os.truncate(prefix.with_suffix(".bin"), 10)
    loader = DataLoader(
        data,
        sampler=[63],
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    with pytest.raises(Exception, match="when it was opened"):
        list(loader)
