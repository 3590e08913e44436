"""Checkpoints from a Hub: ours beside snapshot_download and from_pretrained, and beside curl.

The Hub is on this machine, in a process of its own. Its checkpoints have the shape and the file of
the 70m, causal masks included; the weights are random, and other ones in each step.
"""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import Comparison
from huggingface_hub import hf_hub_url, snapshot_download
from local_hub import speak_to
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.hub.download import CONNECTIONS
from pythia_fast.series.hub import HubSeries
from pythia_fast.series.write import write_torch_zip
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import HubServer, random_state_dict

MODEL = spec("70m")
REPO = str(MODEL.repo)
STEPS = MODEL.steps[:16]
FILE = "pytorch_model.bin"
LATENCY_S = 0.02
CONNECTION_BYTES_PER_S = 100e6
SLOW_BYTES_PER_S = 2.5e6
"""For each connection, where the network is to be the bottleneck."""
CURL_FILES = 8
SOME_STEPS, SEQUENCES, TOKENS = STEPS[:8], 8, 1025
"""Of a sweep in which computing takes longer than downloading."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sixteen checkpoints of 166 MB."""
    root = tmp_path_factory.mktemp("hub")
    shape = MODEL.architecture
    weights, masks = random_state_dict(shape), buffers(shape)
    for step in STEPS:
        of_step = {name: tensor + step * 2**-12 for name, tensor in weights.items()}
        (root / f"step{step}").mkdir()
        write_torch_zip(root / f"step{step}" / FILE, of_step | masks)
        config = json.dumps(shape.to_config())
        (root / f"step{step}" / "config.json").write_text(config)
    yield root
    shutil.rmtree(root)


def buffers(shape: Architecture) -> dict[str, torch.Tensor]:
    """What old files hold besides weights: in each layer a causal mask and two small ones."""
    mask = torch.ones(shape.max_positions, shape.max_positions, dtype=torch.bool).tril()
    found = {}
    for layer in range(shape.layers):
        prefix = f"gpt_neox.layers.{layer}.attention"
        found[f"{prefix}.bias"] = mask[None, None].clone()
        found[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
        found[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(shape.rotary_dims // 2)
    return found


def serve(folder: Path, **settings: Any) -> HubServer:
    """The folder's steps as the branches of the 70m."""
    branches = {f"step{step}": folder / f"step{step}" for step in STEPS}
    return HubServer({REPO: branches}, **settings)


def test_sixteen_checkpoints(
    benchmark: Any,
    comparison: Comparison,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first byte to the last checkpoint in memory, nothing kept from one call to the next.

    The peer's files go through eight connections, its default, but a checkpoint is one file.
    """
    throttled = serve(
        folder, latency_s=LATENCY_S, bytes_per_s=CONNECTION_BYTES_PER_S, redirect=True
    )
    with throttled.in_process() as hub:
        speak_to(hub.url, monkeypatch)

        def ours(look: Callable[[int, Mapping[str, torch.Tensor]], None] | None = None) -> None:
            cache = tmp_path / "ours"
            for step, model in pythia_fast.stream("70m", STEPS, dtype="float32", cache_dir=cache):
                if look is not None:
                    look(step, model.state_dict())
            shutil.rmtree(cache)

        def peer(look: Callable[[int, Mapping[str, torch.Tensor]], None] | None = None) -> None:
            cache = tmp_path / "theirs"
            for step in STEPS:
                path = snapshot_download(REPO, revision=f"step{step}", cache_dir=cache)
                model = GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.float32)
                if look is not None:
                    weights = model.state_dict()
                    weights["embed_out.weight"] = weights.pop("lm_head.weight")
                    look(step, weights)
            shutil.rmtree(cache)

        sums: dict[int, dict[str, float]] = {}

        def remember(step: int, weights: Mapping[str, torch.Tensor]) -> None:
            sums[step] = {name: float(w.double().sum()) for name, w in weights.items()}

        def compare(step: int, weights: Mapping[str, torch.Tensor]) -> None:
            assert sums[step] == {name: float(w.double().sum()) for name, w in weights.items()}

        ours(remember)
        peer(compare)
        assert list(sums) == list(STEPS)
        comparison.run(
            benchmark,
            f"{len(STEPS)} checkpoints of 70m, 20 ms latency, 100 MB/s a connection",
            ours,
            {"snapshot_download + from_pretrained, one after the other": peer},
            target={"snapshot_download + from_pretrained, one after the other": 2.0},
            cache="nothing downloaded before",
            numbers={"bytes": sum(path.stat().st_size for path in folder.rglob(FILE))},
        )


def test_as_fast_as_curl(
    benchmark: Any,
    comparison: Comparison,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that two cores can send and receive; ours on the disk, with its sha256."""
    steps = STEPS[:CURL_FILES]
    with serve(folder).in_process() as hub:
        speak_to(hub.url, monkeypatch)
        urls = [hf_hub_url(REPO, FILE, revision=f"step{step}", endpoint=hub.url) for step in steps]

        def ours() -> None:
            cache = tmp_path / "ours"
            series = HubSeries(MODEL, cache)
            with series.ahead(steps):
                for step in steps:
                    checkpoint = series.open(step)
                    assert checkpoint.files[0].sha256 is not None
                    checkpoint.close()
            shutil.rmtree(cache)

        def curl(*after: str) -> None:
            target = tmp_path / "theirs"
            target.mkdir()
            command = ["curl", "--silent", "--fail", "--parallel"]
            for number, url in enumerate(urls):
                command += ["-o", str(target / f"{number}.bin") if after else "/dev/null", url]
            subprocess.run(command, check=True)
            if after and after[0] == "sha256sum":
                subprocess.run(
                    ["xargs", "-P", "2", "-n", "1", "sha256sum"],
                    input="\n".join(map(str, target.iterdir())).encode(),
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
            shutil.rmtree(target)

        ours()
        digests = {
            hashlib.sha256((folder / f"step{step}" / FILE).read_bytes()).hexdigest()
            for step in steps
        }
        series = HubSeries(MODEL, tmp_path / "checked")
        checked = [series.open(step) for step in steps]
        assert {checkpoint.files[0].sha256 for checkpoint in checked} == digests
        received = sum(each.fetch.received_bytes for each in checked if each.fetch is not None)
        nbytes = sum((folder / f"step{step}" / FILE).stat().st_size for step in steps)
        comparison.run(
            benchmark,
            f"{len(steps)} files of 166 MB as fast as they come, stored and verified",
            ours,
            {
                "curl --parallel, to /dev/null": curl,
                "curl --parallel, to files": lambda: curl("files"),
                "curl --parallel, to files, then sha256sum in two processes": lambda: curl(
                    "sha256sum"
                ),
            },
            target={"curl --parallel, to /dev/null": 0.8},
            cache="the server's files in the page cache",
            numbers={"bytes": nbytes, "ours_received_bytes": received},
        )


def test_the_network_is_busy(
    comparison: Comparison, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that waits for its downloads, and what it uses of what the network can carry.

    Every connection carries so many bytes a second; how many there are is ours to choose.
    """
    with serve(folder, latency_s=LATENCY_S, bytes_per_s=SLOW_BYTES_PER_S).in_process() as hub:
        speak_to(hub.url, monkeypatch)
        began_s = time.perf_counter()
        result = pythia_fast.sweep(
            "70m",
            STEPS,
            tokens=ids(1)[:, :129],
            dtype="float32",
            cache_dir=tmp_path / "cache",
            out=tmp_path / "out",
            progress=False,
        )
        elapsed_s = time.perf_counter() - began_s
        received = sum(result.times["received_bytes"].to_pylist())
    assert result.table.num_rows == len(STEPS)
    carried = received / (CONNECTIONS * SLOW_BYTES_PER_S)
    comparison.note(
        f"a sweep of {len(STEPS)} checkpoints at 2.5 MB/s a connection",
        {
            "connections": CONNECTIONS,
            "received_mb": received / 1e6,
            "sweep_s": elapsed_s,
            "at_full_rate_s": carried,
            "network_busy": carried / elapsed_s,
            "network_busy_target": 0.95,
        },
    )


def test_the_model_is_busy(
    comparison: Comparison, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that computes longer than it downloads, and how long the model waits."""
    with serve(folder, latency_s=LATENCY_S).in_process() as hub:
        speak_to(hub.url, monkeypatch)
        result = pythia_fast.sweep(
            "70m",
            SOME_STEPS,
            tokens=ids(SEQUENCES),
            dtype="float32",
            cache_dir=tmp_path / "cache",
            out=tmp_path / "out",
            progress=False,
        )
    times = result.times.to_pandas()
    first, later = times.iloc[0], times.iloc[1:]
    comparison.note(
        f"{len(SOME_STEPS)} checkpoints, {SEQUENCES} x {TOKENS - 1} tokens each, float32",
        {
            "compute_s": times["compute_s"].sum(),
            "wait_for_the_first_s": first["wait_s"],
            "wait_for_all_others_s": later["wait_s"].sum(),
            "idle_share": later["wait_s"].sum() / later[["wait_s", "compute_s"]].sum().sum(),
            "idle_share_target": 0.02,
        },
    )


def ids(sequences: int) -> np.ndarray:
    """Random tokens."""
    return np.random.default_rng(0).integers(0, 50_254, (sequences, TOKENS), dtype=np.uint16)
