"""Files that arrive whole, through whatever the server does, and across processes."""

import errno
import hashlib
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pythia_fast.errors import (
    ArgumentError,
    ChecksumError,
    HubError,
    MissingCheckpointError,
    OfflineError,
    WriteError,
)
from pythia_fast.hub import arrival, body
from pythia_fast.hub import download as module
from pythia_fast.hub.arrival import Arrived
from pythia_fast.hub.download import Downloader
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.partial import (
    BLOCK_BYTES,
    PartialFile,
    present_bytes,
    quarantine_of,
    record_of,
)
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.hub.revisions import list_branches, list_files
from pythia_fast.testing import HubServer

REPO = "me/model"
CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_001, np.uint8).tobytes()
RESULT_S = 20


@pytest.fixture(autouse=True)
def _small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "PIECE_BYTES", (2**18, 2**19))
    monkeypatch.setattr(body, "OWN_HANDS_BYTES", 2**18)
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "b.bin").write_bytes(CONTENT[::-1])
    (folder / "config.json").write_text('{"x": 1}')
    (folder / "empty.bin").write_bytes(b"")
    return folder


@pytest.fixture(params=[False, True], ids=["direct", "redirect"])
def hub(request: pytest.FixtureRequest, folder: Path) -> Iterator[HubServer]:
    with HubServer({REPO: {"step0": folder}}, redirect=request.param) as hub:
        yield hub


@pytest.fixture
def partials(tmp_path: Path) -> Path:
    (tmp_path / "partial").mkdir()
    return tmp_path / "partial"


def listed(hub: HubServer) -> tuple[RangeReader, dict[str, HubFile]]:
    commit = list_branches(REPO, endpoint=hub.url)["step0"]
    files = {file.path: file for file in list_files(REPO, commit, endpoint=hub.url)}
    reader = RangeReader(
        *(REPO, commit), endpoint=hub.url, repo_type="model", missing=MissingCheckpointError
    )
    return reader, files


def fetch(hub: HubServer, path: Path, name: str = "a.bin", **settings: float) -> Arrived:
    reader, files = listed(hub)
    with Downloader(connections=4, **settings) as downloader:
        return downloader.submit(reader, files[name], path).result(RESULT_S)


def begin(path: Path, first: int, stop: int | None) -> None:
    """Let some blocks of a.bin be there."""
    partial = PartialFile(path, len(CONTENT))
    blocks = range(-(-len(CONTENT) // BLOCK_BYTES))[first:stop]
    low, high = blocks[0] * BLOCK_BYTES, min((blocks[-1] + 1) * BLOCK_BYTES, len(CONTENT))
    partial.write(low, memoryview(CONTENT)[low:high])
    partial.mark(low, high)
    partial.release()


def ranges(hub: HubServer) -> list[str]:
    return [request.range for request in hub.requests if request.range and request.status == 206]


def test_files_arrive(hub: HubServer, folder: Path, partials: Path) -> None:
    reader, files = listed(hub)
    with Downloader(connections=3) as downloader:
        futures = {
            name: downloader.submit(reader, file, partials / name) for name, file in files.items()
        }
        arrived = {name: future.result(RESULT_S) for name, future in futures.items()}
    for name, file in files.items():
        data = (folder / name).read_bytes()
        assert (partials / name).read_bytes() == data
        assert arrived[name].sha256 == hashlib.sha256(data).hexdigest()
        assert arrived[name].received_bytes == file.size == len(data)
        assert arrived[name].resumed_bytes == arrived[name].made_bytes == 0
    assert downloader.received_bytes == sum(file.size for file in files.values())
    records = {record_of(partials / name).name for name in files}
    assert {path.name for path in partials.iterdir()} == {*files, *records}


def test_what_has_come_is_not_fetched_again(hub: HubServer, partials: Path) -> None:
    """A process was killed before it gave the file its place."""
    fetch(hub, partials / "x")
    again = fetch(hub, partials / "x")
    assert (again.received_bytes, again.resumed_bytes) == (0, len(CONTENT))
    assert again.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_several_ranges_of_a_file(hub: HubServer, partials: Path) -> None:
    fetch(hub, partials / "x")
    assert len(set(ranges(hub))) > 4


def test_a_file_in_git_is_verified_too(hub: HubServer, folder: Path, partials: Path) -> None:
    hub.corrupt("config.json", times=2)
    with pytest.raises(ChecksumError, match=r"me/model: config\.json of commit .* wrong bytes are"):
        fetch(hub, partials / "x", "config.json")
    assert quarantine_of(partials / "x").read_bytes() != (folder / "config.json").read_bytes()
    assert not (partials / "x").exists()
    assert fetch(hub, partials / "x", "config.json").received_bytes == 8


def test_a_flipped_bit_is_put_aside_and_fetched_afresh(hub: HubServer, partials: Path) -> None:
    hub.corrupt("a.bin")
    arrived = fetch(hub, partials / "x")
    assert (partials / "x").read_bytes() == CONTENT
    assert arrived.received_bytes == 2 * len(CONTENT)
    wrong = quarantine_of(partials / "x").read_bytes()
    assert sum(a != b for a, b in zip(wrong, CONTENT, strict=True)) == 1


def test_busy_cut_and_nonsense(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    hub.fail("a.bin", status=500, times=3)
    hub.fail("a.bin", status=429, times=2, headers={"Retry-After": "0"})
    hub.cut("a.bin", times=3)
    hub.mislead("a.bin", {"Content-Range": "bytes 1-2/3"})
    hub.ignore_range("a.bin")
    with Downloader(connections=4) as downloader:
        arrived = downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    assert (partials / "x").read_bytes() == CONTENT
    assert arrived.received_bytes < len(CONTENT) + 8 * BLOCK_BYTES, "what came is kept"
    assert sum(hub.spoiled.values()) == 3 + 2 + 3 + 1 + 1, "every fault was met"


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_stall_is_noticed(
    hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    reader, files = listed(hub)
    monkeypatch.setattr(body, "STALL_S", 0.3)
    getattr(hub, fault)("a.bin", times=3)
    with Downloader(connections=4) as downloader:
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    assert (partials / "x").read_bytes() == CONTENT


def test_all_connections_leave_a_server_alone(
    hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, files = listed(hub)
    hub.fail("a.bin", status=429, headers={"RateLimit": '"api";r=0;t=1'})
    began: list[tuple[float, str]] = []
    stream = RangeReader.stream

    def noted(self: RangeReader, file: HubFile, *arguments: Any, **settings: Any) -> None:
        began.append((time.monotonic(), file.path))
        stream(self, file, *arguments, **settings)

    monkeypatch.setattr(RangeReader, "stream", noted)
    with Downloader(connections=4) as downloader:
        first = downloader.submit(reader, files["a.bin"], partials / "a")
        deadline_s = time.monotonic() + RESULT_S
        while not downloader._paused_until_s and time.monotonic() < deadline_s:
            time.sleep(0.001)
        (until_s,) = downloader._paused_until_s.values()
        second = downloader.submit(reader, files["b.bin"], partials / "b")
        assert not wait([first, second], RESULT_S).not_done
    assert (partials / "b").read_bytes() == CONTENT[::-1]
    second_s = [at_s for at_s, path in began if path == "b.bin"]
    assert min(second_s) >= until_s, "the other three connections knew"


def test_a_server_that_asks_for_more_than_there_is_time(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    hub.fail("a.bin", status=503, times=99, headers={"Retry-After": "3600"})
    with Downloader(connections=2) as downloader:
        future = downloader.submit(reader, files["a.bin"], partials / "a")
        with pytest.raises(HubError, match=r"(?s)503.*asks to wait 3600 s\).*no byte has come"):
            future.result(RESULT_S)
        downloader.submit(reader, files["b.bin"], partials / "b").result(RESULT_S)


def test_what_comes_again_and_again_is_no_progress(hub: HubServer, partials: Path) -> None:
    """Less than a block comes with each answer, so that each begins where the last one did."""
    asked: list[int] = []

    class Cut(RangeReader):
        def stream(self, file: HubFile, begin: int, end: int, take: Any, **_: Any) -> None:
            asked.append(begin)
            take(memoryview(CONTENT)[begin : begin + 1000])
            raise OSError("the answer ends early")

    reader, files = listed(hub)
    reader.__class__ = Cut
    with (
        Downloader(connections=2, patience_s=2) as downloader,
        pytest.raises(HubError, match=r"ends early; no byte has come for"),
    ):
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    assert len(asked) > len(set(asked))


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_never_ends_is_given_up(
    hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A block comes now and then, with or without failures between; the time for all is up."""
    monkeypatch.setattr(module, "PATIENCES", 0)
    monkeypatch.setattr(module, "SLOWEST_FILE_BYTES_PER_S", len(CONTENT) / 0.25)
    end_s = time.monotonic() + RESULT_S

    class Slow(RangeReader):
        def stream(self, file: HubFile, begin: int, end: int, take: Any, **_: Any) -> None:
            while time.monotonic() < end_s:
                time.sleep(0.1)
                take(memoryview(CONTENT)[begin : begin + BLOCK_BYTES])  # for ever the same
                if fails:
                    raise OSError("the answer ends early")

    reader, files = listed(hub)
    reader.__class__ = Slow
    words = r"a\.bin could not be had.*; the file has not come in [0-4] s"
    with (
        Downloader(connections=1) as downloader,
        pytest.raises(HubError, match=words),
    ):
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)


def test_an_error_behind_the_last_byte_is_none(hub: HubServer, partials: Path) -> None:
    asked: list[tuple[int, int]] = []

    class Late(RangeReader):
        def stream(self, file: HubFile, begin: int, end: int, take: Any, **_: Any) -> None:
            asked.append((begin, end))
            take(memoryview(CONTENT)[begin:end])
            raise OSError("the connection broke")

    reader, files = listed(hub)
    reader.__class__ = Late
    with Downloader(connections=2) as downloader:
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    assert (partials / "x").read_bytes() == CONTENT
    assert all(begin < end for begin, end in asked)
    assert len(asked) == len(set(asked))


def test_patience_ends_and_other_files_go_on(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    hub.fail("a.bin", status=503, times=10_000)
    with Downloader(connections=2, patience_s=0.5) as downloader:
        first = downloader.submit(reader, files["a.bin"], partials / "a")
        second = downloader.submit(reader, files["b.bin"], partials / "b")
        assert second.result(RESULT_S).received_bytes == len(CONTENT)
        with pytest.raises(
            HubError, match=r"(?s)a\.bin could not be had.*503.*no byte has come for"
        ):
            first.result(RESULT_S)


def test_the_first_patience_holds_until_something_comes(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    hub.fail("a.bin", status=503, times=10_000)
    with Downloader(connections=2, patience_s=60, first_patience_s=0.1) as downloader:
        with pytest.raises(HubError, match="no byte has come for"):
            downloader.submit(reader, files["a.bin"], partials / "a").result(RESULT_S)
        downloader.submit(reader, files["b.bin"], partials / "b").result(RESULT_S)
        with pytest.raises(TimeoutError):
            downloader.submit(reader, files["a.bin"], partials / "a").result(1)


@pytest.mark.parametrize("status", [403, 400])
def test_a_refusal_is_not_asked_for_long(hub: HubServer, partials: Path, status: int) -> None:
    reader, files = listed(hub)
    before = hub.count("a.bin")
    hub.fail("a.bin", status=status, times=10_000)
    hub.fail("cdn", status=status, times=10_000)
    with Downloader(connections=1) as downloader:
        future = downloader.submit(reader, files["a.bin"], partials / "a")
        with pytest.raises(HubError, match=str(status)):
            future.result(RESULT_S)
    assert hub.count("a.bin") - before == module.SENSELESS_ATTEMPTS


def test_a_file_that_is_gone(hub: HubServer, partials: Path) -> None:
    reader, _ = listed(hub)
    gone = HubFile("gone.bin", 1000, "0" * 64)
    with (
        Downloader() as downloader,
        pytest.raises(MissingCheckpointError, match=r"gone\.bin is not on the Hub"),
    ):
        downloader.submit(reader, gone, partials / "x").result(RESULT_S)


def test_what_cannot_be_asked_for(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    with pytest.raises(ArgumentError, match="one is the least"):
        Downloader(connections=0)
    downloader = Downloader()
    with pytest.raises(ArgumentError, match="no hash is listed"):
        downloader.submit(reader, HubFile("x", 1, None), partials / "x")
    downloader.close()
    with pytest.raises(ArgumentError, match="closed"):
        downloader.submit(reader, files["a.bin"], partials / "x")


def test_offline(hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, files = listed(hub)
    before = len(hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with (
        Downloader() as downloader,
        pytest.raises(OfflineError, match="offline mode: unset HF_HUB_OFFLINE"),
    ):
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    for call in (
        lambda: list_branches(REPO, endpoint=hub.url),
        lambda: list_files(REPO, reader.commit, endpoint=hub.url),
        lambda: reader.read(files["a.bin"], 0, 5),
    ):
        with pytest.raises(OfflineError):
            call()
    assert len(hub.requests) == before


def test_the_token_is_for_the_hub_alone(
    folder: Path, partials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with HubServer({REPO: {"step0": folder}}, redirect=True) as hub:
        fetch(hub, partials / "x")
        assert {(request.host.split(":")[0], request.authorized) for request in hub.requests} == {
            ("127.0.0.1", True),
            ("localhost", False),
        }


def test_a_folder_that_is_not_there(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No such file"):
        fetch(hub, tmp_path / "nowhere" / "x")


def test_links_are_not_followed(hub: HubServer, partials: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (partials / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match="cannot write"):
        fetch(hub, partials / "x")
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_a_full_disk(hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, budget = os.pwrite, [10]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        budget[0] -= 1
        if budget[0] == 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    reader, files = listed(hub)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with Downloader(connections=2) as downloader, pytest.raises(WriteError) as caught:
            downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)
    assert caught.value.errno == 28
    assert 0 < present_bytes(partials / "x", len(CONTENT)) < len(CONTENT)
    arrived = fetch(hub, partials / "x")
    assert arrived.resumed_bytes > 0
    assert (partials / "x").read_bytes() == CONTENT


def test_close_is_prompt_and_keeps_what_came(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    begin(partials / "a.bin", 0, 3)
    begin(partials / "a.bin", -6, None)  # what is looked at before all else
    hub.hang("a.bin", times=2)
    hub.hang("b.bin", times=99)
    downloader = Downloader(connections=4)
    futures = [
        downloader.submit(reader, files[name], partials / name) for name in ("a.bin", "b.bin")
    ]
    deadline_s = time.monotonic() + RESULT_S
    while downloader.received_bytes < 2**19 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    start_s = time.monotonic()
    downloader.close()
    assert time.monotonic() - start_s < 5
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)
    assert not wait(futures, 0).not_done
    assert present_bytes(partials / "a.bin", len(CONTENT)) > 9 * BLOCK_BYTES


def test_a_cancelled_file_stops_and_the_next_comes(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    hub.drip("a.bin", times=99, pause_s=0.01)
    with Downloader(connections=1) as downloader:
        first = downloader.submit(reader, files["a.bin"], partials / "a")
        second = downloader.submit(reader, files["b.bin"], partials / "b")
        time.sleep(0.05)
        assert first.cancel()
        second.result(RESULT_S)
    assert (partials / "b").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("ended_by", ["cancel", "error"])
def test_nobody_writes_any_more_once_it_has_ended(
    hub: HubServer, partials: Path, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """The file may be another process's by then."""
    reader, files = listed(hub)
    inside, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    write, numbers, late = PartialFile.write, itertools.count(), []

    def slow(partial: PartialFile, offset: int, data: memoryview) -> None:
        middle = len(CONTENT) // 3 < offset < len(CONTENT) // 2  # others come beside it
        slowest = middle and next(numbers) == 0
        if slowest:
            inside.set()
            go_on.wait(RESULT_S)
        elif inside.is_set() and ended_by == "error":
            raise WriteError(errno.EIO, "a disk that fails")
        write(partial, offset, data)
        if slowest:
            late.append(ended.is_set())

    monkeypatch.setattr(PartialFile, "write", slow)
    with Downloader(connections=4) as downloader:
        future = downloader.submit(reader, files["a.bin"], partials / "x")
        future.add_done_callback(lambda _: ended.set())
        assert inside.wait(RESULT_S)
        thread = threading.Thread(target=future.cancel if ended_by == "cancel" else lambda: None)
        thread.start()
        assert wait([future], 0.3).not_done
        go_on.set()
        assert wait([future], RESULT_S).done
        thread.join()
    assert late == [False]


def test_another_process_goes_on_after_a_kill(hub: HubServer, partials: Path) -> None:
    reader, files = listed(hub)
    file = files["a.bin"]
    program = f"""
        import os, pathlib
        from pythia_fast.errors import MissingCheckpointError
        from pythia_fast.hub import arrival
        from pythia_fast.hub.download import Downloader
        from pythia_fast.hub.files import HubFile
        from pythia_fast.hub.ranges import RangeReader
        arrival.PIECE_BYTES = (2**18, 2**18)
        reader = RangeReader({REPO!r}, {reader.commit!r}, endpoint={hub.url!r}, repo_type="model",
                             missing=MissingCheckpointError)
        record = Downloader._record
        def killed(self, *arguments):
            if self.received_bytes > 2**20:
                os.kill(os.getpid(), 9)
            return record(self, *arguments)
        Downloader._record = killed
        downloader = Downloader(connections=2)
        file = HubFile("a.bin", {file.size}, {file.sha256!r})
        downloader.submit(reader, file, pathlib.Path({str(partials / "x")!r})).result()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=60, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    present = present_bytes(partials / "x", file.size)
    assert 2**19 < present < file.size
    arrived = fetch(hub, partials / "x")
    assert (partials / "x").read_bytes() == CONTENT
    assert arrived.resumed_bytes == present
    assert arrived.received_bytes == file.size - present


def test_what_a_power_cut_took_comes_again(hub: HubServer, partials: Path) -> None:
    partial = PartialFile(partials / "x", len(CONTENT))
    partial.mark(0, 20 * BLOCK_BYTES)  # and nothing was written there
    partial.release()
    arrived = fetch(hub, partials / "x")
    assert (partials / "x").read_bytes() == CONTENT
    assert arrived.resumed_bytes == 0
    assert quarantine_of(partials / "x").exists()


def test_all_is_there_already(hub: HubServer, partials: Path) -> None:
    begin(partials / "x", 0, None)
    arrived = fetch(hub, partials / "x")
    assert (arrived.received_bytes, arrived.resumed_bytes) == (0, len(CONTENT))
    assert not hub.count("a.bin")


def test_a_file_replaced_by_somebody_is_not_taken_for_ours(hub: HubServer, partials: Path) -> None:
    class Replacing(RangeReader):
        def stream(self, *arguments: Any, **settings: Any) -> None:
            (partials / "x").unlink(missing_ok=True)
            super().stream(*arguments, **settings)

    reader, files = listed(hub)
    reader.__class__ = Replacing
    with (
        Downloader(connections=2) as downloader,
        pytest.raises(WriteError, match="removed or replaced"),
    ):
        downloader.submit(reader, files["a.bin"], partials / "x").result(RESULT_S)


class TestMasks:
    """Causal masks are made here, if the file's hash bears it out."""

    SIDE = 512

    def content(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        tensors: dict[str, np.ndarray] = {}
        for layer in range(3):
            name = f"gpt_neox.layers.{layer}.attention"
            tensors[f"{name}.bias"] = mask[None, None]
            tensors[f"{name}.dense.weight"] = rng.normal(size=(300, 301)).astype(np.float32)
        return tensors

    def save(self, folder: Path, name: str, mask: np.ndarray) -> Path:
        tensors = self.content(mask)
        if name.endswith(".bin"):
            torch.save(
                {key: torch.from_numpy(value) for key, value in tensors.items()}, folder / name
            )
        else:
            save_file(tensors, folder / name)
        return folder / name

    @pytest.mark.parametrize("name", ["m.bin", "m.safetensors"])
    def test_a_mask_is_made(self, folder: Path, partials: Path, name: str) -> None:
        mask = np.tril(np.ones((self.SIDE, self.SIDE), bool))
        path = self.save(folder, name, mask)
        with HubServer({REPO: {"step0": folder}}) as hub:
            arrived = fetch(hub, partials / "x", name)
            assert (partials / "x").read_bytes() == path.read_bytes()
            assert arrived.made_bytes >= 3 * (self.SIDE**2 - 2 * BLOCK_BYTES)
            assert arrived.made_bytes + arrived.received_bytes == path.stat().st_size
            assert hub.count(name) > 1

    @pytest.mark.parametrize("name", ["m.bin", "m.safetensors"])
    def test_another_mask_is_fetched(self, folder: Path, partials: Path, name: str) -> None:
        mask = np.triu(np.ones((self.SIDE, self.SIDE), bool))
        path = self.save(folder, name, mask)
        with HubServer({REPO: {"step0": folder}}) as hub:
            arrived = fetch(hub, partials / "x", name)
        assert (partials / "x").read_bytes() == path.read_bytes()
        assert arrived.made_bytes == 0
        assert arrived.received_bytes == path.stat().st_size
        assert not quarantine_of(partials / "x").exists()

    def test_a_checksum_that_lies(self, folder: Path, partials: Path) -> None:
        """The directory promises a mask where there is none: the hash disagrees."""
        good = np.tril(np.ones((self.SIDE, self.SIDE), bool))
        path = self.save(folder, "m.bin", good)
        with zipfile.ZipFile(path) as archive:
            record = max(archive.infolist(), key=lambda i: (i.file_size == self.SIDE**2, 0))
        data = bytearray(path.read_bytes())
        data[record.header_offset + 200 + self.SIDE**2 // 2] ^= 1
        path.write_bytes(data)
        with HubServer({REPO: {"step0": folder}}) as hub:
            arrived = fetch(hub, partials / "x", "m.bin")
        assert (partials / "x").read_bytes() == data
        assert arrived.made_bytes == 0
        assert not quarantine_of(partials / "x").exists()

    def test_a_made_mask_is_known_by_the_next_process(self, folder: Path, partials: Path) -> None:
        mask = np.tril(np.ones((self.SIDE, self.SIDE), bool))
        path = self.save(folder, "m.bin", mask)
        with HubServer({REPO: {"step0": folder}}) as hub:
            reader, files = listed(hub)
            first = arrival.Arrival(reader, files["m.bin"], partials / "x", threading.Lock())
            first.begin()
            piece = first.pieces.popleft()
            reader.stream(
                *(files["m.bin"], piece.begin, piece.end),
                lambda view: first.partial.write(piece.begin, view),
            )
            first.record(piece.begin, piece.end)
            first.fetched()
            first.partial.release()
            there = present_bytes(partials / "x", path.stat().st_size)
            arrived = fetch(hub, partials / "x", "m.bin")
        assert (partials / "x").read_bytes() == path.read_bytes()
        assert arrived.made_bytes + arrived.resumed_bytes == there
        assert arrived.made_bytes >= 3 * (self.SIDE**2 - 2 * BLOCK_BYTES)
        assert present_bytes(partials / "x", path.stat().st_size) == path.stat().st_size
