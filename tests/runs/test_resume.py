"""Killed, interrupted, failed, changed under way: what was finished stays, and the rest follows."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from damaged_parts import DAMAGES, Damage, cut

import pythia_fast
from pythia_fast.errors import (
    FormatError,
    MissingCheckpointError,
    ReadError,
    RunMismatchError,
    SweepError,
    SweepInterruptedError,
    WeightsError,
    WriteError,
)
from pythia_fast.model import LoadReport, Weights
from pythia_fast.model.streams import Event
from pythia_fast.runs.steps import todo
from pythia_fast.runs.steps.survey import weights_sha256
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.write import write_checkpoint
from pythia_fast.suite import Architecture
from pythia_fast.testing import random_state_dict

Sweep = Callable[..., pythia_fast.SweepResult]
PART = "parts/step=2/perplexity-00000.parquet"

SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
import pythia_fast

class Slow(pythia_fast.Perplexity):
    def __call__(self, model, batch):
        print("step", model.step, flush=True)
        time.sleep(0.2)
        while model.step == 2 and Path(sys.argv[4]).exists():
            time.sleep(0.01)
        return super().__call__(model, batch)

ids = np.load(sys.argv[2])
try:
    pythia_fast.sweep(sys.argv[1], tokens=ids, metrics=[Slow()], out=sys.argv[3], progress=False)
except KeyboardInterrupt as interrupt:
    print(type(interrupt).__name__, interrupt, flush=True)
    sys.exit(130)
"""


@pytest.fixture
def own_series(tiny_series: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_series, tmp_path / "series"))


@pytest.fixture
def process(tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path) -> Callable[[], object]:
    """Start a slow sweep in a process of its own."""
    np.save(tmp_path / "ids.npy", tiny_ids)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [tiny_series, *(tmp_path / name for name in ("ids.npy", "killed", "gate"))]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True
        )

    return start


def read_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for printed in process.stdout:
        if printed.strip() == line:
            return
    raise AssertionError(f"the process ended without {line!r}")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_goes_on_to_the_same_values(
    process: Callable[[], subprocess.Popen[str]],
    tmp_path: Path,
    small_sweep: Sweep,
    signal_number: int,
) -> None:
    (tmp_path / "gate").touch()
    first = process()
    read_until(first, "step 2")
    os.kill(first.pid, signal_number)
    output, _ = first.communicate(timeout=60)
    (tmp_path / "gate").unlink()
    assert first.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    if signal_number == signal.SIGINT:
        assert "SweepInterruptedError" in output
        assert "2 of 6 steps are finished" in output
    kept = pythia_fast.SweepResult(tmp_path / "killed").table["step"].to_pylist()
    if signal_number == signal.SIGINT:
        assert kept == [0, 1]
    else:  # step 1 may have been on its way to the disk
        assert kept in ([0], [0, 1])
    second = process()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert output.splitlines() == [f"step {n}" for n in (0, 1, 2, 4, 8, 16) if n not in kept]
    resumed = pythia_fast.SweepResult(tmp_path / "killed")
    whole = small_sweep()
    assert resumed.sequences.equals(whole.sequences)
    assert resumed.table.equals(whole.table)


def test_an_interrupt_in_the_same_process(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            if model.step == 4:
                raise KeyboardInterrupt
            return dict(super().__call__(model, batch))

    with pytest.raises(SweepInterruptedError, match="3 of 6 steps are finished") as caught:
        small_sweep(metrics=[Interrupted()])
    assert isinstance(caught.value, KeyboardInterrupt)


WEIGHTS = "step4/pytorch_model.bin"


def half_written(series: Path) -> None:
    (series / WEIGHTS).unlink()


def truncated(series: Path) -> None:
    path = series / WEIGHTS
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def without_config(series: Path) -> None:
    (series / "step4/config.json").unlink()


def half_a_config(series: Path) -> None:
    (series / "step4/config.json").write_text('{"hidden_size": ')


def one_tensor_more(series: Path) -> None:
    path = series / WEIGHTS
    torch.save(torch.load(path, weights_only=True) | {"another": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (half_written, MissingCheckpointError),
        (truncated, FormatError),
        (without_config, MissingCheckpointError),
        (half_a_config, FormatError),
        (one_tensor_more, WeightsError),
    ],
)
def test_a_broken_step_is_skipped_and_told(
    small_sweep: Sweep, own_series: Path, damage: Callable[[Path], None], error: type
) -> None:
    damage(own_series)
    result = small_sweep(model=own_series, on_error="skip")
    assert result.table["step"].to_pylist() == [0, 1, 2, 8, 16]
    assert [failure.step for failure in result.failures] == [4]
    assert issubclass(getattr(pythia_fast.errors, result.failures[0].error), error)
    Counting.calls = 0
    with pytest.raises(SweepError, match=r"1 of 6 steps cannot be had: step 4:") as caught:
        small_sweep(model=own_series, metrics=[Counting()], out=own_series / "run")
    assert isinstance(caught.value.__cause__, error)
    assert Counting.calls == 0


def test_a_folder_that_is_not_writable_is_refused_before_anything_is_computed(
    small_sweep: Sweep, own_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = [Counting()]
    small_sweep(model=own_series, out=own_series / "run", steps=[0, 4])
    (own_series / "run/parts/step=4/perplexity-00000.parquet").unlink()
    small_sweep(metrics=metrics, steps=[0, 1])
    (tmp_path / "run/parts/step=1/perplexity-00000.parquet").unlink()
    (tmp_path / "new").mkdir()
    allowed = Path.open

    def refuse(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "x" in mode and tmp_path in path.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return allowed(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", refuse)
    Counting.calls = 0
    with pytest.raises(WriteError, match=r"cannot write .*/run: Read-only .*; give another"):
        small_sweep(metrics=metrics, steps=[0, 1])
    with pytest.raises(WriteError, match=r"cannot write .*/run: Read-only .*; give another"):
        small_sweep(metrics=metrics, steps=[0, 1, 2])
    half_written(own_series)
    with pytest.raises(WriteError, match=r"cannot write .*/series/run: Read-only"):
        small_sweep(model=own_series, out=own_series / "run", steps=[0, 4])
    for name in ("new", "none/at/all"):
        with pytest.raises(WriteError, match=f"cannot write .*/{name}: .*Read-only "):
            small_sweep(metrics=metrics, out=tmp_path / name, tokens="hub:not/asked")
    assert Counting.calls == 0


class Counting(pythia_fast.Perplexity):
    """Perplexity, counting how often it is computed."""

    calls = 0

    def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict[str, Any]:
        Counting.calls += 1
        return super().__call__(model, batch)


def test_a_mended_step_is_computed_and_its_failure_forgotten(
    small_sweep: Sweep, own_series: Path, tiny_series: Path
) -> None:
    half_written(own_series)
    small_sweep(model=own_series, on_error="skip")
    shutil.copy2(tiny_series / WEIGHTS, own_series / WEIGHTS)
    result = small_sweep(model=own_series)
    assert result.failures == ()
    assert len(result.table) == 6


def test_results_of_changed_weights_are_not_taken(
    small_sweep: Sweep, own_series: Path, tiny: Architecture
) -> None:
    small_sweep(model=own_series, steps=[0, 1])
    shutil.rmtree(own_series / "step1")
    write_checkpoint(own_series / "step1", random_state_dict(tiny, step=99), tiny)
    with pytest.raises(RunMismatchError, match="weights of step 1 have changed"):
        small_sweep(model=own_series, steps=[0, 1])


def touched(file: Path) -> None:
    os.utime(file, (time.time() + 10, time.time() + 10))


def copied(file: Path) -> None:
    """To another place, without its times."""
    shutil.copyfile(file, file.with_name(".new"))
    file.with_name(".new").replace(file)


@pytest.mark.parametrize("change", [touched, copied])
def test_files_that_only_look_changed_are_hashed_once(
    small_sweep: Sweep,
    own_series: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    hashed = []

    def counting(series: Any, step: int) -> str:
        hashed.append(step)
        return weights_sha256(series, step)

    monkeypatch.setattr(todo, "weights_sha256", counting)
    result = small_sweep(model=own_series)
    steps = sorted(set(result.table["step"].to_pylist()))
    for _ in range(2):
        for file in list(own_series.glob("step*/*")):
            change(file)
        for _ in range(2):
            assert small_sweep(model=own_series).table.equals(result.table)
        assert hashed == steps
        hashed.clear()
    for record in (result.path / "unchanged").iterdir():
        record.write_text('{"sha256": "of another form"}')
    assert small_sweep(model=own_series).table.equals(result.table)
    assert hashed == steps


def test_equal_weights_are_computed_once(
    small_sweep: Sweep, own_series: Path, tiny_ids: np.ndarray
) -> None:
    shutil.rmtree(own_series / "step8")
    shutil.copytree(own_series / "step2", own_series / "step8")
    seen = []

    class Counting(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            seen.append(model.step)
            return dict(super().__call__(model, batch))

    table = small_sweep(model=own_series, metrics=[Counting()], batch_tokens=10_000).table
    rows = {row["step"]: row for row in table.to_pylist()}
    assert 8 not in seen
    assert rows[8]["duplicate_of"] == 2
    assert rows[8]["loss"] == rows[2]["loss"]
    assert rows[4]["duplicate_of"] is None


def test_nan_weights_are_counted_and_kept(
    small_sweep: Sweep, own_series: Path, tiny: Architecture
) -> None:
    weights = random_state_dict(tiny, step=4)
    weights["gpt_neox.layers.1.mlp.dense_4h_to_h.bias"][3] = float("nan")
    shutil.rmtree(own_series / "step4")
    write_checkpoint(own_series / "step4", weights, tiny)
    metrics = ("perplexity", "memorization", "memorization-score")
    table = small_sweep(model=own_series, steps="2,4", metrics=metrics).table
    status = table.group_by("step").aggregate([("status", "distinct")]).to_pylist()
    assert status == [
        {"step": 2, "status_distinct": ["ok"]},
        {"step": 4, "status_distinct": ["non-finite"]},
    ]
    row = next(r for r in table.to_pylist() if r["step"] == 4 and r["metric"] == "perplexity")
    assert np.isnan(row["loss"])
    assert row["nonfinite"] == 24 * 79


def test_a_batch_that_does_not_fit_is_halved(small_sweep: Sweep, tmp_path: Path) -> None:
    sizes = []

    class Hungry(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            sizes.append(len(batch.ids_BT))
            if len(batch.ids_BT) > 3:
                raise torch.OutOfMemoryError("too much")
            return dict(super().__call__(model, batch))

    result = small_sweep(metrics=[Hungry()], steps=[1], batch_tokens=10_000)
    assert sizes == [24, 12, 6, 3, 3, 6, 3, 3, 12, 6, 3, 3, 6, 3, 3]
    reference = small_sweep(steps=[1], out=tmp_path / "reference")
    np.testing.assert_allclose(
        result.sequences["nll"], reference.sequences["nll"], rtol=1e-5, atol=1e-5
    )


def test_memory_that_is_never_enough_is_an_error(small_sweep: Sweep) -> None:
    class Insatiable(pythia_fast.Perplexity):
        def __call__(self, model: pythia_fast.Model, batch: pythia_fast.Batch) -> dict:
            raise torch.OutOfMemoryError("too much")

    with pytest.raises(SweepError, match="step 0 failed: OutOfMemoryError: too much"):
        small_sweep(metrics=[Insatiable()])


def test_two_writers_of_one_run_agree(
    process: Callable[[], subprocess.Popen[str]], tmp_path: Path, small_sweep: Sweep
) -> None:
    both = [process(), process()]
    for one in both:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert pythia_fast.SweepResult(tmp_path / "killed").table.equals(small_sweep().table)
    assert not list(tmp_path.glob("killed/**/*.partial"))


def test_a_failure_that_a_killed_process_left_is_forgotten(
    small_sweep: Sweep, tmp_path: Path
) -> None:
    """It was killed between a step's last part and the removal of the failure."""
    small_sweep()
    (tmp_path / "run/failures").mkdir()
    (tmp_path / "run/failures/step=1.json").write_text('{"error": "E", "message": "m"}')
    assert small_sweep().failures == ()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_part_is_put_aside_and_computed_again(
    small_sweep: Sweep, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    whole = small_sweep()
    path = whole.path / PART
    damage(path)
    damaged = path.read_bytes()
    again = small_sweep()
    assert again.gaps == again.failures == ()
    assert again.table.equals(whole.table)
    assert again.sequences.equals(whole.sequences)
    (aside,) = (whole.path / "damaged/step=2").iterdir()
    assert aside.read_bytes() == damaged
    assert [str(path) in text and str(aside) in text for text in caplog.messages] == [True]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_also_in_a_step_that_is_not_finished(
    small_sweep: Sweep, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.runs.plan.SHARD_SEQUENCES", 10)
    whole = small_sweep(steps=[2])
    damage(whole.path / PART)
    (whole.path / PART.replace("00000", "00002")).unlink()
    again = small_sweep(steps=[2])
    assert again.sequences.equals(whole.sequences)


def test_a_part_that_was_put_aside_is_not_looked_for_again(small_sweep: Sweep) -> None:
    path = small_sweep(steps=[2]).path
    cut(path / PART)
    small_sweep(steps=[2])
    modified = (path / PART).stat().st_mtime_ns
    small_sweep(steps=[2])
    assert (path / PART).stat().st_mtime_ns == modified
    assert len(list((path / "damaged/step=2").iterdir())) == 1


def test_what_cannot_be_read_for_now_is_not_put_aside(
    small_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system that is away says nothing of the part."""
    path = small_sweep().path

    def away(*_: object) -> None:
        raise ReadError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("pythia_fast.runs.folder.checked.checked_part", away)
        with pytest.raises(SweepError, match="Stale file handle"):
            small_sweep()
    assert not (path / "damaged").exists()
    assert len(small_sweep().table) == 6


def test_a_part_of_another_series_is_computed_again_even_if_it_is_the_first(
    small_sweep: Sweep, own_series: Path, tmp_path: Path
) -> None:
    """A copy of another run's must not speak for this one."""
    other = Path(shutil.copytree(own_series, tmp_path / "other"))
    shutil.copytree(other / "step4", other / "step0", dirs_exist_ok=True)
    theirs = small_sweep(model=other, steps=[0], out=tmp_path / "theirs")
    whole = small_sweep(model=own_series)
    first = PART.replace("step=2", "step=0")
    shutil.copy(theirs.path / first, whole.path / first)
    assert small_sweep(model=own_series).table.equals(whole.table)


def test_a_part_of_other_sequences_is_computed_again(small_sweep: Sweep) -> None:
    whole = small_sweep(steps=[2])
    table = pq.read_table(whole.path / PART)
    pq.write_table(table[::-1].replace_schema_metadata(table.schema.metadata), whole.path / PART)
    assert small_sweep(steps=[2]).sequences.equals(whole.sequences)


def test_another_series_of_the_same_name_is_refused(
    small_sweep: Sweep, tiny_series: Path, tiny: Architecture, tmp_path: Path
) -> None:
    """Two seeds, both in folders called "tiny", with different steps in each."""
    small_sweep(steps=[0])
    other = tmp_path / "seed2" / "tiny"
    write_checkpoint(other / "step32", random_state_dict(tiny, step=32, seed=2), tiny)
    with pytest.raises(RunMismatchError, match="another series"):
        small_sweep(model=other)
    moved = Path(shutil.copytree(tiny_series, tmp_path / "moved" / "tiny"))
    assert small_sweep(model=moved, steps=[0, 1]).table["step"].to_pylist() == [0, 1]


@pytest.mark.parametrize("change", [touched, copied])
def test_a_step_that_changes_while_it_is_read_is_told(
    small_sweep: Sweep,
    own_series: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    load = Weights.load

    def touching(self: Weights, checkpoint: Checkpoint, *, after: Event | None) -> LoadReport:
        report = load(self, checkpoint, after=after)
        change(own_series / WEIGHTS)
        return report

    monkeypatch.setattr(Weights, "load", touching)
    with pytest.raises(SweepError, match="changed while it was read"):
        small_sweep(model=own_series, steps=[4])
