"""The benchmark of GPUs where there is none: every theme runs, and what it says of failures."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest
import record
import tables
import torch
from on_gpu import folders
from on_gpu.bench import Bench, WrongAnswerError
from on_gpu.ceilings import GpuRoofline, measure_ceilings
from on_gpu.machine import describe_gpu
from roofline import Work

CPU = torch.device("cpu")
ROOFLINE = GpuRoofline({"float16_product_flop_per_s": 1e12, "device_copy_byte_per_s": 1e9}, 2)


def bench(theme: str = "theme", *, seconds: float = 60.0, kept: list[int] | None = None) -> Bench:
    rows = kept if kept is not None else []
    return Bench(
        theme,
        CPU,
        ROOFLINE,
        seconds=seconds,
        keep=lambda collected: rows.append(len(collected.rows)),
    )


@pytest.fixture
def one_thread():
    """Threads of torch wait for one another, for long on a busy machine, with little to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("theme", gpu.THEMES)
@pytest.mark.filterwarnings("default")
def test_every_theme_runs(theme):
    rehearsal = Bench(f"gpu-{theme}", CPU, measure_ceilings(CPU), seconds=600, keep=lambda _: None)
    importlib.import_module(f"on_gpu.{theme.replace('-', '_')}").run(rehearsal)
    assert not rehearsal.failures
    assert rehearsal.rows
    assert not [row for row in rehearsal.rows if "left out" in row]
    assert tables.rows(rehearsal.rows, rehearsal.calibration)
    json.dumps(rehearsal.rows, allow_nan=False)


def test_the_command_rehearses_and_keeps_nothing(tmp_path):
    command = [sys.executable, gpu.__file__, "--rehearse", "--theme", "ceilings"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "a rehearsal: the times mean nothing" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_theme_that_takes_too_long_is_stopped_and_its_checkpoints_are_removed(monkeypatch, capfd):
    def slow(command, **rest):
        code = (
            "import time; from on_gpu import folders; "
            "print(folders.folder_for(1), flush=True); time.sleep(99)"
        )
        return started([sys.executable, "-c", code], cwd=Path(gpu.__file__).parent, **rest)

    started = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", slow)
    assert gpu.main(["--theme", "ceilings", "--minutes", "0.05"]) == 1
    said = capfd.readouterr().out
    assert "was stopped" in said
    (made,) = [Path(line) for line in said.splitlines() if line.startswith("/")]
    assert "pythia-fast-gpu-" in made.name
    assert not made.exists()


def test_an_unknown_theme_is_told_of():
    with pytest.raises(SystemExit, match="no theme nothing; there are ceilings"):
        gpu.main(["--theme", "nothing"])


def test_a_wrong_answer_is_not_timed_and_the_next_case_goes_on():
    exact, calls = torch.ones(4, dtype=torch.float64), []
    found = bench()
    for case, ours in (("wrong", exact.float() + 1e-3), ("right", exact.float())):
        with found.attempt(case):
            found.answers(lambda ours=ours: ours, {"peer": exact.float}, exact, lambda x: x)
            found.race(case, lambda case=case: calls.append(case), {})
    assert set(calls) == {"right"}
    assert found.failures == ["wrong"]
    assert found.rows[0]["failed"].startswith("WrongAnswerError: the error is 0.001")
    assert found.rows[1]["case"] == "right"


@pytest.mark.parametrize("broken", ["ours", "peer"])
def test_what_is_unwritten_or_another_question_is_a_wrong_answer(broken):
    exact = torch.arange(1, 5, dtype=torch.float64)
    ours = torch.tensor([1.0, torch.nan, 3.0, 4.0]) if broken == "ours" else exact.float()
    peer = exact.float() * 1.1 if broken == "peer" else exact.float()
    says = "not written" if broken == "ours" else "peer answers another question"
    with pytest.raises(WrongAnswerError, match=says):
        bench().answers(lambda: ours, {"peer": lambda: peer}, exact, lambda x: x)


def test_a_lost_context_ends_the_theme():
    found = bench()
    with pytest.raises(torch.AcceleratorError), found.attempt("case"):
        raise torch.AcceleratorError("an illegal memory access")
    assert found.failures == ["case"]


def test_a_peer_that_cannot_run_is_noted_and_the_others_are_timed():
    def absent() -> None:
        raise RuntimeError("No available kernel\nand more")

    found = bench()
    ratios = found.race(
        "case",
        lambda: time.sleep(0.02),
        {"absent": absent, "here": lambda: time.sleep(0.2), "slow": lambda: time.sleep(1)},
        work=Work(1e6, dtype="float16"),
        best_target=1.1,
    )
    assert set(ratios) == {"here", "slow"}
    assert found.rows[0] == {"case": "case", "without": "absent", "because": "No available kernel"}
    here, slow = found.rows[1:]
    assert here["target_ratio"] == 1.1
    assert "target_ratio" not in slow
    assert here["ours_roof"] == "float16 product"
    assert 1 < here["ratio_median"] < slow["ratio_median"]


def test_ours_may_not_be_missing():
    def absent() -> None:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        bench().race("case", absent, {"peer": lambda: None})


def test_cases_without_time_are_left_out_and_said():
    late = bench(seconds=0)
    assert list(late.within_time(["a", "b"])) == []
    assert late.rows == [{"case": name, "left out": "no time was left"} for name in "ab"]


def test_rows_are_kept_as_they_come():
    kept: list[int] = []
    found = bench(kept=kept)
    found.note("a", {"x": 1.0})
    found.race("b", lambda: None, {"peer": lambda: None})
    assert kept == [1, 2]


def test_rounds_fit_their_time_and_another_call_begins_each():
    calls: list[str] = []
    found = bench()
    found.rehearsal = False
    found.race(
        "case",
        lambda: calls.append("ours"),
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        case_s=0.0,
        fewest=4,
    )
    assert found.rows[0]["rounds"] == 4
    assert calls[:3] == ["ours", "a", "b"]  # warm-up
    counted = calls[3:]
    assert len(counted) == 12
    assert counted[3:6] == ["ours", "a", "b"]
    assert counted[6:9] == ["a", "b", "ours"]


def test_the_record_of_a_gpu_is_a_table(tmp_path):
    found = bench("gpu-theme")
    found.race("case", lambda: None, {"peer": lambda: None}, work=Work(1.0, dtype="float16"))
    machine = describe_gpu(CPU) | {"gpu": "NVIDIA H200", "driver": "580.1", "cuda": "13.0"}
    record.save(found, tmp_path, "nvidia-h200", machine, "python benchmarks/gpu.py")
    text = tables.sections(record.latest(tmp_path))
    assert "### nvidia-h200" in text
    assert "NVIDIA H200, driver 580.1, CUDA 13.0" in text
    assert "#### gpu-theme" in text


def test_checkpoints_lie_in_memory_where_there_is_room(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "IN_MEMORY", tmp_path)
    roomy = folders.folder_for(1)
    assert roomy.parent == tmp_path
    large = folders.folder_for(2**60)
    assert large.parent != tmp_path
    folders.remove_series_of(int(large.name.split("-")[3]))
    assert not roomy.exists()
    assert not large.exists()
