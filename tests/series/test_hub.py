"""Checkpoints from a Hub on this machine: the right bytes, whatever happens on the way."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from pythia_fast.errors import (
    ChecksumError,
    FormatError,
    HubError,
    MissingCheckpointError,
    UnknownStepError,
    WeightsError,
)
from pythia_fast.series import LocalSeries
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import HubServer, make_series

REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 1000)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As many attempts as ever, with no pause between them."""
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


@pytest.fixture
def folder(tmp_path: Path, tiny: Architecture) -> Path:
    return make_series(tmp_path / "series", tiny, STEPS)


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    """`main` is what must never be taken: the weights of another step."""
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    with HubServer({REPO: {**branches, "main": folder / "step1000"}}) as server:
        yield server


@pytest.fixture
def series(hub: HubServer, tmp_path: Path) -> HubSeries:
    return HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_right_bytes_at_the_right_commit(
    series: HubSeries, folder: Path, tiny: Architecture
) -> None:
    assert series.steps == spec("14m").steps
    for step in STEPS:
        ours, theirs = series.open(step), LocalSeries(folder).open(step)
        assert ours.weights_sha256 == theirs.weights_sha256 == ours.files[0].sha256
        assert ours.commit == series.commit(step) == series.identity(step)
        assert ours.architecture == tiny
        assert f"step{step}" in ours.source
        for name, found in ours.tensors.items():
            expected = theirs.tensors[name]
            assert found.file.read(found.offset, found.nbytes) == expected.file.read(
                expected.offset, expected.nbytes
            )


@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_shards(tmp_path: Path, tiny: Architecture, format) -> None:
    folder = make_series(tmp_path / "s", tiny, (0,), formats=(format,), shard_bytes=50_000)
    with HubServer({REPO: {"step0": folder / "step0"}}) as hub:
        found = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url).open(0)
    assert len(found.files) > 2
    assert found.weights_sha256 == LocalSeries(folder).open(0).weights_sha256


def test_through_a_redirect_to_another_host(folder: Path, tmp_path: Path) -> None:
    with HubServer({REPO: {"step0": folder / "step0"}}, redirect=True) as hub:
        found = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url).open(0)
        assert hub.count("/cdn/") == 1
    assert found.weights_sha256 == digest(folder / "step0/model.safetensors")


def test_only_what_is_needed_is_downloaded_and_only_once(
    hub: HubServer, series: HubSeries, folder: Path
) -> None:
    shutil.copy(folder / "step0/model.safetensors", folder / "step1/model.safetensors")
    for name in ("README.md", "tokenizer.json", "optimizer.bin", "sub/pytorch_model.bin"):
        path = folder / "step1" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not needed")
    hub.publish(REPO, "step1", folder / "step1")
    series.open(1)
    series.open(1)
    downloads = [r.path for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
    assert sorted(path.rpartition("/")[2] for path in downloads) == [
        "config.json",
        "pytorch_model.bin",
    ]
    assert "/sub/" not in "".join(downloads)
    assert hub.count("/refs") == 1


def test_the_commit_is_pinned_although_the_branch_moves(
    hub: HubServer, series: HubSeries, folder: Path, tmp_path: Path
) -> None:
    pinned = series.commit(0)
    moved = hub.publish(REPO, "step0", folder / "step1000")
    assert moved != pinned
    assert series.open(0).commit == pinned
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")
    later = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
    assert later.open(0).commit == moved
    assert later.open(0).weights_sha256 == digest(folder / "step1000/model.safetensors")


def test_threads_pin_once(hub: HubServer, series: HubSeries) -> None:
    threads = [threading.Thread(target=series.commit, args=(0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.count("/refs") == 1


def test_a_step_that_was_not_uploaded(hub: HubServer, series: HubSeries) -> None:
    with pytest.raises(MissingCheckpointError, match="no branch step2000"):
        series.open(2000)
    with pytest.raises(UnknownStepError, match="1500"):
        series.open(1500)
    assert hub.count("main") == 0


def test_a_repository_that_is_not_there(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="pythia-70m is not on the Hub"):
        HubSeries(spec("70m"), tmp_path, endpoint=hub.url).open(0)


@pytest.mark.parametrize(
    ("name", "reason"), [("config.json", "has no config"), ("model.safetensors", "no weights")]
)
def test_a_revision_without_a_file_never_falls_back_to_main(
    hub: HubServer, series: HubSeries, folder: Path, name: str, reason: str
) -> None:
    (folder / "step0" / name).unlink()
    hub.publish(REPO, "step0", folder / "step0")
    with pytest.raises(MissingCheckpointError, match=reason):
        series.open(0)
    assert hub.count("main") == 0


def test_a_main_without_weights_does_not_matter(
    hub: HubServer, series: HubSeries, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/README.md").write_text("see the branches")
    hub.publish(REPO, "main", tmp_path / "bare")
    assert series.open(0).step == 0


def test_a_shard_missing_from_the_listing(
    hub: HubServer, series: HubSeries, tiny: Architecture, tmp_path: Path
) -> None:
    folder = make_series(tmp_path / "s", tiny, (0,), shard_bytes=50_000)
    index = folder / "step0/model.safetensors.index.json"
    content = json.loads(index.read_bytes())
    (folder / "step0" / content["weight_map"]["embed_out.weight"]).unlink()
    hub.publish(REPO, "step0", folder / "step0")
    with pytest.raises(MissingCheckpointError, match="lacks 1 of the"):
        series.open(0)
    content["weight_map"]["embed_out.weight"] = "../../../etc/passwd"
    index.write_text(json.dumps(content))
    hub.publish(REPO, "step0", folder / "step0")
    with pytest.raises(FormatError, match="no file beside it"):
        HubSeries(spec("14m"), tmp_path / "other", endpoint=hub.url).open(0)


def test_corrupt_once_is_downloaded_afresh(hub: HubServer, series: HubSeries, folder: Path) -> None:
    hub.corrupt("model.safetensors")
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")
    assert hub.count("model.safetensors", method="GET") == 2


def test_corrupt_always_is_an_error(hub: HubServer, series: HubSeries, folder: Path) -> None:
    hub.corrupt("pytorch_model.bin", times=2)
    with pytest.raises(ChecksumError, match="even after a fresh download"):
        series.open(1)
    assert hub.count("pytorch_model.bin", method="GET") == 2
    series.open(0)
    assert series.open(1).weights_sha256 == digest(folder / "step1/pytorch_model.bin")


def test_a_cached_file_that_rots_is_found_and_replaced(
    hub: HubServer, series: HubSeries, folder: Path
) -> None:
    path = series.open(0).files[0].path
    rotten = bytearray(path.read_bytes())
    rotten[-5] ^= 16
    time.sleep(0.02)  # a tick of the file system's clock
    path.resolve().write_bytes(rotten)
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")
    path.resolve().write_bytes(rotten[:100])
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")
    assert hub.count("model.safetensors", method="GET") == 3


def test_a_cut_body_is_resumed(hub: HubServer, series: HubSeries, folder: Path) -> None:
    hub.cut("model.safetensors")
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")


@pytest.mark.parametrize("what", ["/refs", "/tree/", "config.json", "model.safetensors"])
def test_busy_and_then_well(hub: HubServer, series: HubSeries, folder: Path, what: str) -> None:
    hub.fail(what, status=503, times=2 if what == "/refs" else 1)
    assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")


def test_busy_when_the_body_is_fetched(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    with HubServer({REPO: {"step0": folder / "step0"}}, redirect=True) as hub:
        hub.fail("/cdn/", status=500, times=2)
        series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
        assert series.open(0).weights_sha256 == digest(folder / "step0/model.safetensors")
        assert hub.count("/cdn/") == 3


@pytest.mark.parametrize(("status", "requests"), [(503, 4), (403, 1), (418, 1)])
def test_an_answer_that_stays_bad(
    hub: HubServer, series: HubSeries, status: int, requests: int
) -> None:
    hub.fail("/refs", status=status, times=100)
    with pytest.raises(HubError, match=f"{REPO}: its branches.*{status}") as caught:
        series.open(0)
    assert caught.value.__cause__ is not None
    assert hub.count("/refs") == requests


def test_no_server_at_all(hub: HubServer, series: HubSeries) -> None:
    hub.__exit__(None, None, None)
    with pytest.raises(HubError, match="ConnectError"):
        series.open(0)
    hub.__enter__()


def test_answers_that_make_no_sense(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    repository = hub._state.repositories[REPO]
    original = repository.branches["step0"]
    repository.branches["step0"] = type(original)("../../etc", original.files)
    with pytest.raises(HubError, match=r"'step0' is at '\.\./\.\./etc'"):
        HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url).open(0)


def test_weights_without_a_sha256_are_refused(
    hub: HubServer, series: HubSeries, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.testing.repository.LARGE_SUFFIXES", ())
    with pytest.raises(HubError, match="no sha256"):
        series.open(0)


def test_weights_of_another_model(
    hub: HubServer, series: HubSeries, folder: Path, tiny: Architecture
) -> None:
    config = {**tiny.to_config(), "num_hidden_layers": 3}
    (folder / "step0/config.json").write_text(json.dumps(config))
    hub.publish(REPO, "step0", folder / "step0")
    with pytest.raises(WeightsError, match="step0"):
        series.open(0)
