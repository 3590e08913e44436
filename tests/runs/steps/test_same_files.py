"""Steps of a folder with the same weights are found before any is loaded, and no others."""

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pythia_fast import digest
from pythia_fast.core import File
from pythia_fast.runs.asking import questions, settled
from pythia_fast.runs.cluster.one_model import OneModel
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps import same_files
from pythia_fast.runs.steps.same_files import with_digests
from pythia_fast.runs.steps.survey import survey
from pythia_fast.series import open_series
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.testing import tiny, tiny_suite

STEPS = (0, 1, 2, 4)
LAYOUTS: tuple[Literal["safetensors", "gpt-neox layers", "gpt-neox ranks"], ...] = (
    "safetensors",
    "gpt-neox layers",
    "gpt-neox ranks",
)


def digests(folder: Path) -> dict[int, str | None]:
    series = open_series(folder)
    found = with_digests(series, survey(series, series.steps))
    return {step: revision.weights_sha256 for step, revision in found.revisions.items()}


def opened(folder: Path, step: int) -> str:
    """What is said of a step's weights when it is loaded."""
    checkpoint = open_series(folder).open(step)
    try:
        return checkpoint.weights_sha256
    finally:
        checkpoint.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps whose files are read as a whole."""
    steps: list[int] = []
    look = same_files._hashed

    def looking(checkpoint: Checkpoint) -> str:
        steps.append(checkpoint.step)
        return look(checkpoint)

    monkeypatch.setattr(same_files, "_hashed", looking)
    return steps


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_are_known_by_their_digest_and_no_others_are_read(
    tmp_path: Path, hashed: list[int], layout: Literal["safetensors"]
) -> None:
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout=layout, copies={1: 0, 4: 0})
    found = digests(folder)
    assert found == {0: found[0], 1: found[0], 2: None, 4: found[0]}
    assert hashed == [0, 1, 4]
    assert found[0] == opened(folder, 0) == opened(folder, 1) != opened(folder, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_loads_them_does_not_hash_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Literal["safetensors"]
) -> None:
    """Unless they have changed since."""
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout=layout, copies={1: 0})
    an_hour_later = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
    monkeypatch.setattr(digest, "time", an_hour_later)
    series = open_series(folder)
    expected = {step: opened(folder, step) for step in STEPS}
    found = with_digests(series, survey(series, series.steps))
    assert [found.revisions[step].weights_sha256 for step in (0, 1)] == [expected[0]] * 2

    read: list[str] = []
    look = digest.sha256

    def looking(file: File) -> str:
        read.append(file.path)
        return look(file)

    monkeypatch.setattr(digest, "sha256", looking)
    there = pickle.loads(pickle.dumps(series))  # as it comes to a worker
    assert {step: there.open(step).weights_sha256 for step in (0, 1)} == {
        step: expected[step] for step in (0, 1)
    }
    assert read == []
    assert there.open(2).weights_sha256 == expected[2]
    assert read
    changed = max((path for path in folder.glob("*step1/*") if path.is_file()), key=_size)
    data, before = bytearray(changed.read_bytes()), changed.stat()
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert there.open(1).weights_sha256 == opened(folder, 1) != expected[1]
    assert there.open(0).weights_sha256 == expected[0]


def _size(path: Path) -> int:
    return path.stat().st_size


def samples(size: int) -> np.ndarray:
    """Whether a byte of a file of this size is looked at before it is hashed as a whole."""
    looked_at = np.zeros(size, bool)
    for number in range(same_files._SAMPLES):
        begin = size * (2 * number + 1) // (2 * same_files._SAMPLES)
        looked_at[begin : begin + same_files._SAMPLE_BYTES] = True
    return looked_at


def test_one_byte_that_no_sample_sees_makes_other_weights(
    tmp_path: Path, hashed: list[int]
) -> None:
    architecture = tiny(layers=1, width=128, vocab_rows=2000)
    folder = tiny_suite(
        tmp_path / "tiny",
        steps=STEPS,
        layout="safetensors",
        architecture=architecture,
        copies={1: 0, 2: 0},
    )
    (weights,) = (folder / "step1").glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    unseen = np.flatnonzero(~samples(len(data)))
    assert len(unseen) > len(data) // 4
    place = int(unseen[len(unseen) // 2])
    data[place] ^= 1
    weights.write_bytes(data)
    found = digests(folder)
    assert hashed == [0, 1, 2]  # they look alike
    assert found[0] == found[2] == opened(folder, 0)
    assert found[1] == opened(folder, 1) != found[0]
    assert found[4] is None
    assert found[1] == hashlib.sha256(data).hexdigest()


def test_files_of_another_size_or_name_are_not_read(tmp_path: Path, hashed: list[int]) -> None:
    """Not even where all that is sampled is the same."""
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout="safetensors", copies={1: 0, 2: 0})
    (weights,) = (folder / "step1").glob("*.safetensors")
    save_file(load_file(weights), weights, metadata={"format": "pt", "longer": "by this"})
    assert weights.stat().st_size > (folder / "step0" / weights.name).stat().st_size
    (weights,) = (folder / "step2").glob("*.safetensors")
    weights.rename(weights.with_name("model-00001-of-00001.safetensors"))
    found = digests(folder)
    assert found[0] is None
    assert found[1] is None
    assert 0 not in hashed
    assert 1 not in hashed


def break_off(folder: Path) -> None:
    """Leave half of the weights."""
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def take_away(folder: Path) -> None:
    """Leave no weights."""
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()


@pytest.mark.parametrize("damage", [break_off, take_away])
def test_what_is_broken_is_left_to_who_loads_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout="safetensors", copies={1: 0, 2: 0})
    damage(folder / "step1")
    series = open_series(folder)
    before = survey(series, series.steps)
    after = with_digests(series, before)
    assert after.revisions[1] == before.revisions[1]
    assert after.revisions[4] == before.revisions[4]
    assert after.revisions[0].weights_sha256 == after.revisions[2].weights_sha256 is not None
    assert after.anomalies == before.anomalies


def test_two_broken_steps_are_not_the_same(tmp_path: Path) -> None:
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout="safetensors", copies={1: 0})
    for step in (0, 1):
        break_off(folder / f"step{step}")
    assert digests(folder) == dict.fromkeys(STEPS)


@pytest.mark.parametrize("layout", ["safetensors", "gpt-neox layers"])
@pytest.mark.parametrize("sharing", [True, False])
def test_the_driver_of_a_cluster_has_one_of_them_computed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Literal["safetensors", "gpt-neox layers"],
    sharing: bool,
) -> None:
    """The others take its results, unless each step looks at rows of its own."""
    monkeypatch.setattr(SweepJob, "sharing", sharing)
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout=layout, copies={1: 0, 4: 2})
    asking = questions(
        [open_series(folder)],
        "all",
        tokens=np.random.default_rng(0).integers(0, 260, (4, 17), dtype=np.uint16),
        sequences=512,
        metrics=("perplexity",),
        deterministic=False,
        batch_tokens="auto",
        disk_budget=None,
        cache_dir=None,
    )
    (asked,) = settled(
        asking, ["float32"], out=tmp_path / "out", several=False, resume=True, cache_dir=None
    )
    progress = Progress(checkpoints=4, tokens=0, shown=False)
    queues = []
    for same in (True, False):
        model = OneModel(0, asked, progress, "raise", models=1)
        if same:
            model.survey()
        else:
            model.todo.survey()
        queues.append(list(model.todo.queue))
        assert sorted(model.todo.left) == list(STEPS)
    assert queues == [[0, 2] if sharing else list(STEPS), list(STEPS)]
