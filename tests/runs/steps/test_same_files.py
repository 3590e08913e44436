"""Steps of a folder with the same weights are found before any is loaded, and no others."""

import hashlib
import os
import pickle
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pythia_fast import digest
from pythia_fast.core import File
from pythia_fast.runs.asking import questions, settled
from pythia_fast.runs.cluster.one_model import OneModel
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.same_files import with_digests
from pythia_fast.runs.steps.survey import Survey, survey
from pythia_fast.runs.steps.todo import Todo
from pythia_fast.series import GptNeoxSeries, LocalSeries, Revision, alike, open_series
from pythia_fast.series.gpt_neox import folder as gpt_neox
from pythia_fast.testing import tiny, tiny_suite
from pythia_fast.testing.suite import Layout

STEPS = (0, 1, 2, 4)
LARGE = tiny(layers=1, width=128, vocab_rows=2000)
"""So large that the samples do not see all of it."""
LAYOUTS: tuple[Layout, ...] = ("safetensors", "gpt-neox layers", "gpt-neox ranks")
MERGED: tuple[tuple[Layout, int], ...] = (("gpt-neox layers", 2), ("gpt-neox ranks", 4))


def looked_for(folder: Path, steps: Collection[int] = STEPS) -> Survey:
    """What is known after looking for steps with the weights of these."""
    series = open_series(folder)
    return with_digests(series, survey(series, series.steps), steps, lambda _: None, {})


def digests(folder: Path) -> dict[int, str | None]:
    return {step: revision.digest for step, revision in looked_for(folder).revisions.items()}


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

    def spied(kind: type[LocalSeries]) -> None:
        look = kind.hashed

        def looking(series: Any, revision: Revision) -> Revision:
            if type(series) is kind:
                steps.append(revision.step)
            return look(series, revision)

        monkeypatch.setattr(kind, "hashed", looking)

    spied(LocalSeries)
    spied(GptNeoxSeries)
    return steps


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps whose ranks are merged."""
    steps: list[int] = []
    assemble = gpt_neox.assemble

    def assembling(parts: Any, source: Path) -> File:
        steps.append(int(source.name.removeprefix("global_step")))
        return assemble(parts, source)

    monkeypatch.setattr(gpt_neox, "assemble", assembling)
    return steps


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_are_known_by_their_digest_and_no_others_are_read(
    tmp_path: Path, hashed: list[int], layout: Layout
) -> None:
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout=layout, copies={1: 0, 4: 0})
    found = digests(folder)
    assert found == {0: found[0], 1: found[0], 2: None, 4: found[0]}
    assert hashed == [0, 1, 4]
    assert found[0] == opened(folder, 0) == opened(folder, 1) != opened(folder, 2)


@pytest.mark.parametrize(("layout", "ranks"), MERGED)
def test_ranks_are_compared_part_by_part_and_never_merged(
    tmp_path: Path, hashed: list[int], merged: list[int], layout: Layout, ranks: int
) -> None:
    folder = tiny_suite(
        *(tmp_path / "tiny",),
        steps=STEPS,
        layout=layout,
        model_parallel=ranks,
        copies={1: 0, 4: 0},
    )
    found = looked_for(folder)
    assert found.same_weights(STEPS) == [(0, 1, 4), (2,)]
    assert [each.weights_sha256 for each in found.revisions.values()] == [None] * 4
    assert (hashed, merged) == ([0, 1, 4], [])
    assert opened(folder, 0) == opened(folder, 4) != opened(folder, 2)


def test_what_a_rank_keeps_beside_its_weights_does_not_count(
    tmp_path: Path, merged: list[int]
) -> None:
    """The number of the iteration is in each file, and makes it another."""
    folder = tiny_suite(
        tmp_path / "tiny", steps=STEPS, layout="gpt-neox ranks", model_parallel=2, copies={1: 0}
    )
    for path in (folder / "global_step1").glob("*.pt"):
        state = torch.load(path, weights_only=False)
        state |= {"iteration": 100_000, "lr_scheduler": {"num_iters": list(range(500))}}
        torch.save(state, path)
        assert path.read_bytes() != (folder / "global_step0" / path.name).read_bytes()
    assert looked_for(folder).same_weights(STEPS) == [(0, 1), (2,), (4,)]
    assert merged == []


@pytest.mark.parametrize("rank", [0, 1])
def test_one_bit_of_one_rank_makes_other_weights(
    tmp_path: Path, hashed: list[int], rank: int
) -> None:
    folder = tiny_suite(
        tmp_path / "tiny",
        steps=STEPS,
        layout="gpt-neox layers",
        model_parallel=2,
        architecture=LARGE,
        copies={1: 0},
    )
    path = folder / "global_step1" / f"layer_02-model_{rank:02}-model_states.pt"
    layer = torch.load(path, weights_only=True)
    bias = layer["mlp.dense_4h_to_h.bias"]
    bias[0] = 1 - bias[0]
    torch.save(layer, path)
    assert looked_for(folder).same_weights(STEPS) == [(0,), (1,), (2,), (4,)]
    assert hashed == [0, 1]  # no sample sees it


def test_parts_that_lie_otherwise_are_others(tmp_path: Path) -> None:
    """Of two ranks that change places each has what it had."""
    folder = tiny_suite(
        tmp_path / "tiny", steps=STEPS, layout="gpt-neox layers", model_parallel=2, copies={1: 0}
    )
    first, second = (
        folder / "global_step1" / f"layer_02-model_{rank:02}-model_states.pt" for rank in (0, 1)
    )
    first.rename(tmp_path / "first")
    second.rename(first)
    (tmp_path / "first").rename(second)
    series = open_series(folder)
    found = series.survey((0, 1))
    assert series.hashed(found[0]).digest != series.hashed(found[1]).digest
    assert opened(folder, 0) != opened(folder, 1)


@pytest.mark.parametrize(("layout", "ranks"), [("safetensors", 1), MERGED[0]])
def test_nothing_is_hashed_where_nothing_is_to_be_computed(
    tmp_path: Path, hashed: list[int], layout: Layout, ranks: int
) -> None:
    folder = tiny_suite(
        tmp_path / "tiny", steps=STEPS, layout=layout, model_parallel=ranks, copies={1: 0, 4: 2}
    )
    assert looked_for(folder, ()).same_weights(STEPS) == [(0,), (1,), (2,), (4,)]
    assert hashed == []
    assert looked_for(folder, (4,)).same_weights(STEPS) == [(0,), (1,), (2, 4)]
    assert hashed == [2, 4]


@pytest.mark.parametrize(("layout", "ranks"), [("safetensors", 1), MERGED[0]])
def test_what_is_computed_already_is_not_hashed_again(
    tmp_path: Path, hashed: list[int], layout: Layout, ranks: int
) -> None:
    """But of ranks that are merged: their fingerprint is of what they are merged to."""
    folder = tiny_suite(
        tmp_path / "tiny", steps=STEPS, layout=layout, model_parallel=ranks, copies={1: 0, 4: 2}
    )
    known = {0: opened(folder, 0)}
    hashed.clear()
    series = open_series(folder)
    found = with_digests(series, survey(series, series.steps), (1,), lambda _: None, known)
    assert found.same_weights(STEPS) == [(0, 1), (2,), (4,)]
    assert hashed == ([1] if ranks == 1 else [1, 0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_loads_them_does_not_hash_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """Unless they have changed since."""
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout=layout, copies={1: 0})
    an_hour_later = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
    monkeypatch.setattr(digest, "time", an_hour_later)
    series = open_series(folder)
    expected = {step: opened(folder, step) for step in STEPS}
    found = with_digests(series, survey(series, series.steps), STEPS, lambda _: None, {})
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


def outline(folder: Path, step: int) -> str | None:
    return open_series(folder).survey([step])[step].outline


def test_one_byte_that_no_sample_sees_makes_other_weights(
    tmp_path: Path, hashed: list[int]
) -> None:
    """One that a sample sees makes them others at once."""
    folder = tiny_suite(
        tmp_path / "tiny",
        steps=STEPS,
        layout="safetensors",
        architecture=LARGE,
        copies={1: 0, 2: 0},
    )
    (weights,) = (folder / "step1").glob("*.safetensors")
    before = weights.read_bytes()
    assert len(before) > 8 * alike.SAMPLES * alike.SAMPLE_BYTES // 4
    seen = {}
    for place in range(len(before) - 1, len(before) // 2, -len(before) // 50):
        data = bytearray(before)
        data[place] ^= 1
        weights.write_bytes(data)
        seen[outline(folder, 1) != outline(folder, 0)] = bytes(data)
    assert seen.keys() == {True, False}

    weights.write_bytes(seen[True])
    assert digests(folder)[1] is None
    assert hashed == [0, 2]

    hashed.clear()
    weights.write_bytes(seen[False])
    found = digests(folder)
    assert hashed == [0, 1, 2]  # they look alike
    assert found[0] == found[2] == opened(folder, 0)
    assert found[1] == opened(folder, 1) != found[0]
    assert found[4] is None
    assert found[1] == hashlib.sha256(seen[False]).hexdigest()


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
    after = with_digests(series, before, STEPS, lambda _: None, {})
    assert after.revisions[1] == before.revisions[1]
    assert after.revisions[4] == before.revisions[4]
    assert after.revisions[0].weights_sha256 == after.revisions[2].weights_sha256 is not None
    assert after.anomalies == before.anomalies


def test_two_broken_steps_are_not_the_same(tmp_path: Path) -> None:
    folder = tiny_suite(tmp_path / "tiny", steps=STEPS, layout="safetensors", copies={1: 0})
    for step in (0, 1):
        break_off(folder / f"step{step}")
    assert digests(folder) == dict.fromkeys(STEPS)


@pytest.mark.parametrize(("layout", "ranks"), [("safetensors", 1), ("gpt-neox layers", 1), *MERGED])
@pytest.mark.parametrize("sharing", [True, False])
def test_one_of_them_is_computed_whoever_computes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    merged: list[int],
    layout: Layout,
    ranks: int,
    sharing: bool,
) -> None:
    """The others take its results, unless each step looks at rows of its own."""
    monkeypatch.setattr(SweepJob, "sharing", sharing)
    folder = tiny_suite(
        tmp_path / "tiny", steps=STEPS, layout=layout, model_parallel=ranks, copies={1: 0, 4: 2}
    )
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
    far = OneModel(0, asked, progress, "raise", models=1)
    here = Todo(asked.series, far.job, asked.folder, progress, None, "raise")
    far.survey()
    here.survey()
    for todo in (far.todo, here):
        assert list(todo.queue) == ([0, 2] if sharing else list(STEPS))
        assert sorted(todo.left) == list(STEPS)
    assert merged == []
