"""`pythia-fast plan`, on a folder and on what it is told of the Hub."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pythia_fast
from pythia_fast.runs.forecast import rates
from pythia_fast.testing import HubServer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in (("MEASURE_S", 0.001), ("NETWORK_S", 0.02), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)


def test_a_folder(run, suite, tokens):
    lines = run("plan", suite, "--tokens", tokens, "--sequences", "3").stdout.splitlines()
    assert lines[0] == f"tiny, from {suite}"
    assert [int(line.split()[0]) for line in lines[2:8]] == [0, 1, 2, 4, 8, 16]
    assert "6 of 6 steps are there" in lines[9]
    assert lines[10].startswith("0 B to download")
    assert [line.split()[0] for line in lines[12:]] == [
        *("download", "verify", "read", "compute", "in"),
    ]
    assert sum("<- the bottleneck" in line for line in lines) == 1


def test_json(run, suite, tokens):
    arguments = ["plan", suite, "--steps", "0,16", "--tokens", tokens, "--json"]
    found = json.loads(run(*arguments).stdout)
    assert [step["step"] for step in found["steps"]] == [0, 16]
    assert found["flops"] > 0
    assert set(found["stage_s"]) == {"download", "verify", "read", "compute"}


def test_a_npy_file(run, suite, tokens, tiny_ids, tmp_path):
    np.save(tmp_path / "ids.npy", tiny_ids)
    flops = [
        json.loads(run("plan", suite, "--tokens", source, "--json").stdout)["flops"]
        for source in (tokens, tmp_path / "ids.npy")
    ]
    assert flops[0] == flops[1]


@pytest.fixture
def hub(tiny_series: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A Hub that has some steps of 14m, and one twice."""
    from pythia_fast.series import sources
    from pythia_fast.series.hub import HubSeries

    branches = {f"step{step}": tiny_series / f"step{step}" for step in (0, 2, 4)}
    branches["step1"] = tiny_series / "step0"
    with HubServer({"EleutherAI/pythia-14m": branches}) as server:

        def open_series(model, *, cache_dir=None, disk_budget=None):
            spec = pythia_fast.spec(model)
            return HubSeries(spec, tmp_path / "hub", endpoint=server.url, disk_budget=disk_budget)

        monkeypatch.setattr(sources, "open_series", open_series)
        monkeypatch.setattr("pythia_fast.series.open_series", open_series)
        monkeypatch.setattr("pythia_fast.runs.forecast.here.open_series", open_series)
        yield server


def test_what_is_missing_ends_with_4(run, hub):
    arguments = ["plan", "14m", "--steps", "0,1,2,8", "--network", "1GB/s"]
    result = run(*arguments, exit_code=4)
    lines = result.stdout.splitlines()
    assert "same weights as 0" in lines[3]
    assert "MISSING: " in lines[5]
    assert "step8" in lines[5], "why"
    assert "known of step 0, 1: identical" in lines[6]
    assert result.stderr == "1 of 4 steps is missing: 8\n"
    assert "3 of 4 steps are there, 1 of them with the weights of another" in result.stdout
    assert not hub.count("pytorch_model.bin", method="GET")
    assert not hub.count("model.safetensors", method="GET")


def test_what_is_wrong_with_a_step_is_said_in_its_line(run, suite, tokens, tmp_path):
    folder = Path(shutil.copytree(suite, tmp_path / "s"))
    (folder / "step1/config.json").write_text("{")
    weights = next(path for path in (folder / "step4").iterdir() if "model" in path.name)
    weights.write_bytes(weights.read_bytes()[:-100])
    result = run("plan", folder, "--tokens", tokens, exit_code=4)
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[2:8]}
    assert f"MISSING: {folder}/step1/config.json: no valid JSON" in rows["1"]
    assert f"MISSING: {weights}: " in rows["4"]
    assert result.stderr == "2 of 6 steps are missing: 1, 4\n"
    several = run("plan", folder, "--tokens", tokens, "--workers", "2", exit_code=4)
    assert f"s: step 1 is missing: {folder}/step1/config.json: no valid" in several.stderr


def test_json_lists_each_file_with_its_digest(run, hub, tiny_series):
    found = json.loads(run("plan", "14m", "--steps", "2", "--network", "1GB/s", "--json").stdout)
    ((name, digest),) = found["steps"][0]["sha256"].items()
    assert digest == hashlib.sha256((tiny_series / "step2" / name).read_bytes()).hexdigest()
    assert found["steps"][0]["files"][name] == (tiny_series / "step2" / name).stat().st_size


@pytest.mark.parametrize("share", [1, 10], ids=["for one", "for none"])
def test_a_disk_that_is_too_small_is_told(run, hub, tiny_series, monkeypatch, share):
    sizes = [
        path.stat().st_size
        for step in (0, 2)
        for path in (tiny_series / f"step{step}").glob("*model*")
    ]
    full = SimpleNamespace(free=max(sizes) // share)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    arguments = ["plan", "14m", "--steps", "0,2", "--network", "1GB/s"]
    told = run(*arguments, exit_code=0 if share == 1 else 4).stderr
    assert ("used checkpoints will be removed" in told) == (share == 1)
    assert ("not even one checkpoint" in told) == (share == 10)


def test_a_budget_is_a_size(run, hub):
    arguments = ["plan", "14m", "--steps", "0", "--network", "1GB/s", "--disk-budget"]
    assert "takes" in run(*arguments, "1kB", exit_code=3).stderr
    assert "no size" in run(*arguments, "much", exit_code=2).stderr
    found = json.loads(run(*arguments, "1TB", "--json").stdout)
    assert found["disk_bytes"] == found["download_bytes"] > 0
