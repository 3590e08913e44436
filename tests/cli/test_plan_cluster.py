"""`pythia-fast plan` for a cluster."""

import json

import pytest

from pythia_fast.cli.on_cluster import OnCluster
from pythia_fast.runs import rates

GIVEN = ("--compute", "400TFLOP/s", "--read", "5GB/s", "--verify", "2GB/s")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in (("MEASURE_S", 0.001), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)


def test_the_whole_suite(run):
    wanted = ("--steps", "all", "--sequences", "512", "--gpus", "8", "--network", "1GB/s")
    lines = run("plan", "all", *wanted, *GIVEN).stdout.splitlines()
    assert lines[17].startswith("in all             2464   2448      15 TB    1.65e+19")
    assert lines[17].endswith("in float16 on cuda")
    head = next(n for n, line in enumerate(lines) if line.startswith("workers"))
    rows = lines[head + 1 : head + 12]
    assert [int(row.split()[0]) for row in rows] == [2**n for n in range(11)]
    assert [row.split()[0] for row in rows if "<- asked for" in row] == ["8"]
    assert [row.split()[0] for row in rows if "<- more help little" in row] == ["4"]
    assert rows[0].split()[-1] == "compute"
    assert rows[10].split()[-1] == "download"
    assert lines[-2].startswith("8 workers: 4 h ")
    assert "the network carries no more" in lines[-1]


def test_without_a_gpu_a_rate_is_assumed_and_said_to_be(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told = run("plan", "70m", "--gpus", "2", "--network", "1GB/s", *GIVEN[2:]).stdout
    assert "400 TFLOP/s for a worker, assumed" in told
    assert "--compute" in told


def test_several_models_need_no_further_option(run):
    found = json.loads(
        run("plan", "14m", "70m", "--steps", "log", "--network", "1GB/s", *GIVEN, "--json").stdout
    )
    assert [model["name"] for model in found["models"]] == ["14m", "70m"]
    assert found["asked"]["workers"] == 1
    assert len(found["curve"]) == 11


def test_a_folder_on_several_workers(run, suite, tokens):
    arguments = ("plan", suite, "--tokens", tokens, "--sequences", "3", "--workers", "3")
    lines = run(*arguments).stdout.splitlines()
    assert lines[1].split()[:4] == ["tiny", "6", "6", "-"]
    assert any(line.split()[0] == "3" and "<- asked for" in line for line in lines if line)
    assert "measured here" in "\n".join(lines)
    assert "Hub" not in "\n".join(lines)


@pytest.mark.parametrize("option", ["--compute=1T", "--node-network=1GB/s", "--workers-per-node=2"])
def test_any_option_of_a_cluster_is_enough(run, suite, tokens, option):
    assert "worker-hours" in run("plan", suite, "--tokens", tokens, option).stdout


def test_missing_steps_end_with_4(run):
    arguments = ("plan", "410m-seed2", "--steps", "110000,111000", "--workers", "2")
    result = run(*arguments, "--network", "1GB/s", *GIVEN, exit_code=4)
    assert "410m-seed2: missing: step 111000" in result.stderr


def test_what_cannot_be(run):
    assert "leave --workers" in run("plan", "70m", "--gpus", 1, "--workers", 1, exit_code=2).stderr
    assert "MODEL" in run("plan", exit_code=2).stderr
    assert "--gpus" in run("plan", "70m", "--gpus", 0, exit_code=2).stderr
    assert "--network" in run("plan", "70m", "--gpus", 1, exit_code=3).stderr
    assert "TFLOP" in run("plan", "70m", "--compute", "fast", exit_code=3).stderr


def test_the_options_are_all_there(run):
    told = run("plan", "--help").stdout
    for name in OnCluster.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in told
