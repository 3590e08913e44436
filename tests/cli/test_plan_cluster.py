"""`pythia-fast plan` for a cluster."""

import json

import pytest

from pythia_fast.cli.on_cluster import OnCluster
from pythia_fast.runs.forecast import rates

GIVEN = ("--compute", "400TFLOP/s", "--read", "5GB/s", "--verify", "2GB/s")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in (("MEASURE_S", 0.001), ("SCRATCH_BYTES", 2**16)):
        monkeypatch.setattr(rates, name, value)


@pytest.fixture
def _elsewhere(monkeypatch):
    """There is no GPU here; a core hashes as fast as most do."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(rates, "sha256_bytes_per_s", lambda: 1.3e9)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("gpus", "time", "why"),
    [(1, "11 h ", "busy: download 36%"), (8, "4 h ", "busy: download 99%")],
)
def test_the_whole_suite(run, gpus, time, why):
    """The README's command, as it is there."""
    wanted = ("--sequences", "512", "--gpus", str(gpus), "--network", "1GB/s")
    lines = run("plan", "all", *wanted).stdout.splitlines()
    assert lines[17].startswith("in all             2464   2448      15 TB    1.65e+19")
    assert lines[17].endswith("in float16 on cuda")
    assert [line.strip() for line in lines[19:23]] == [
        "compute  396 TFLOP/s for a worker, assumed: there is no GPU here to measure; --compute "
        "gives a better one",
        "network  1 GB/s for all, given",
        "verify  1.3 GB/s for a file, assumed (one core here)",
        "read  without a limit: the disks are not here to measure; --read gives one",
    ]
    head = next(n for n, line in enumerate(lines) if line.startswith("workers"))
    rows = lines[head + 1 : head + 12]
    assert [int(row.split()[0]) for row in rows] == [2**n for n in range(11)]
    assert [row.split()[0] for row in rows if "<- asked for" in row] == [str(gpus)]
    assert [row.split()[0] for row in rows if "<- more help little" in row] == ["4"]
    assert rows[0].split("<")[0].split()[-1] == "compute"
    assert rows[10].split()[-1] == "download"
    assert lines[-3].startswith(f"{gpus} worker{'s' * (gpus > 1)}: {time}")
    assert why in lines[-3]
    assert lines[-2].startswith("disk of a node: ")
    assert lines[-2].endswith(" 15.3 TB with what is kept while there is room")
    assert lines[-1] == (
        "More than 4 workers help little: twice as many gain less than 10%, because the network "
        "carries no more."
    )


def test_what_a_disk_budget_keeps(run):
    wanted = ("plan", "70m", "--workers", "2", "--network", "1GB/s", *GIVEN)
    assert "disk of a node: 1 GB at" not in run(*wanted).stdout
    told = run(*wanted, "--disk-budget", "1GB").stdout
    assert "in use at a time; at most 1 GB with what is kept" in told


def test_the_training_data_of_seen_sequences_is_told(run):
    wanted = ("plan", "70m", "--workers", "2", "--network", "1GB/s", *GIVEN, "--steps", "0,143000")
    told = run(*wanted, "--sequences", "seen").stdout
    assert "each node also fetches up to 600 GB of each training data set" in told
    assert "data set" not in run(*wanted).stdout


def test_nothing_to_load(run):
    arguments = ("plan", "410m-seed2", "--steps", "111000", "--workers", "2", "--network", "1GB/s")
    told = run(*arguments, *GIVEN, exit_code=4).stdout
    assert told.splitlines()[-1] == "Nothing is to be loaded."
    assert "<- more help little" not in told


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
    assert "410m-seed2: step 111000 is missing: " in result.stderr
    assert "the branch is there, its weights are not" in result.stderr


def test_what_cannot_be(run):
    assert "leave --workers" in run("plan", "70m", "--gpus", 1, "--workers", 1, exit_code=2).stderr
    told = run("plan", "70m", "--gpus", 8, "--device", "cpu", exit_code=2).stderr
    assert "--gpus plans for GPUs, not for --device cpu" in told
    assert "bits" in run("plan", "70m", "--gpus", 1, "--network", "10Gb/s", exit_code=3).stderr
    told = run("plan", "70m", "--gpus", 100_000, "--network", "1GB/s", exit_code=3).stderr
    assert "10,000 or less" in told
    assert "MODEL" in run("plan", exit_code=2).stderr
    assert "--gpus" in run("plan", "70m", "--gpus", 0, exit_code=2).stderr
    assert "--network" in run("plan", "70m", "--gpus", 1, exit_code=3).stderr
    assert "TFLOP" in run("plan", "70m", "--compute", "fast", exit_code=3).stderr


def test_the_options_are_all_there(run):
    told = run("plan", "--help").stdout
    assert "for a cluster it must be given" in " ".join(told.split())
    assert "on this machine also if the disk has no room" in " ".join(told.split())
    for name in OnCluster.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in told


def test_a_disk_that_cannot_be_measured(run, monkeypatch):
    monkeypatch.setattr(rates, "read_bytes_per_s", lambda *_: None)
    wanted = ("plan", "70m", "--workers", "2", "--network", "1GB/s", "--compute", "1T")
    assert "read  without a limit: nothing here could be measured" in run(*wanted).stdout
