import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

from pythia_fast.demo import Recipe, folder, run_demo
from pythia_fast.demo.corpus import make_corpus
from pythia_fast.errors import ArgumentError, FormatError, WriteError
from pythia_fast.tokens import TokenDataset, load_tokenizer


def silent(path, **options):
    return run_demo(path, progress=False, say=lambda _: None, **options)


def test_the_suite_has_the_hubs_layout_and_both_formats_in_turn(demo_folder, small):
    steps = sorted(int(p.name.removeprefix("step")) for p in (demo_folder / "suite").glob("step*"))
    assert tuple(steps) == small.saved_steps
    for number, step in enumerate(steps):
        weights = "pytorch_model.bin" if number % 2 else "model.safetensors"
        names = {path.name for path in (demo_folder / "suite" / f"step{step}").iterdir()}
        assert names == {"config.json", weights}


def test_the_data_on_disk_is_the_corpus_in_its_order(demo_folder, small):
    corpus = make_corpus(small)
    data = TokenDataset(demo_folder / "data" / "train")
    assert data.dtype == "uint16"
    assert (data[:] == corpus.rows).all()
    canaries = TokenDataset(demo_folder / "data" / "canaries")
    decoder = load_tokenizer(demo_folder / "suite" / "tokenizer.json")
    texts = [decoder.decode(row.tolist()) for row in canaries]
    assert texts == [canary.text for canary in corpus.canaries]


def test_training_step_s_saw_its_rows_of_the_file_as_transformers_sees_them(demo_folder, small):
    losses = json.loads((demo_folder / "demo.json").read_text())["losses"]
    data = TokenDataset(demo_folder / "data" / "train")
    assert len(losses) == small.steps
    for step in (0, 1, 2, 4, 16, 64):  # the loss of step s is that of checkpoint s - 1
        model = GPTNeoXForCausalLM.from_pretrained(
            demo_folder / "suite" / f"step{step}", dtype=torch.float32
        )
        with torch.no_grad():
            ids = torch.from_numpy(data[:])
            logits = model(ids[:, :-1]).logits.flatten(0, 1)
            nll = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        batches = nll.view(small.steps, -1).mean(1).numpy()
        assert batches[step] == pytest.approx(losses[step], abs=2e-3)  # float16 on disk
        assert np.abs(batches - losses[step]).argmin() == step  # no other rows fit as well


def test_weights_are_saved_in_float16(demo_folder):
    for step in (0, 1):
        model = GPTNeoXForCausalLM.from_pretrained(demo_folder / "suite" / f"step{step}")
        assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_training_stops_at_a_saved_step_when_time_runs_out(tmp_path, small):
    story = silent(tmp_path / "demo", recipe=small, limit_s=1e-6)
    assert story.made.steps == 1
    assert story.stopped_early
    assert [row.step for row in story.rows] == [0, 1]
    assert not story.kept
    suite = tmp_path / "demo" / "suite"
    assert {path.name for path in suite.iterdir()} == {"step0", "step1", "tokenizer.json"}


def test_an_interrupt_leaves_nothing(tmp_path, small, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        silent(tmp_path / "demo", recipe=small)
    assert list(tmp_path.iterdir()) == []


def test_fresh_replaces_a_demo_and_an_interrupt_then_leaves_the_old_one(
    tmp_path, small, monkeypatch
):
    path = tmp_path / "demo"
    silent(path, recipe=small, limit_s=1e-6)
    before = (path / "demo.json").read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            silent(path, recipe=small, fresh=True)
    assert (path / "demo.json").read_bytes() == before
    other = silent(path, recipe=Recipe(seed=8, steps=2, repetitions=(0, 1)), fresh=True)
    assert not other.found
    assert [row.step for row in other.rows] == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


def test_a_demo_that_cannot_be_moved_into_place_leaves_the_old_one(tmp_path, small, monkeypatch):
    path = tmp_path / "demo"
    silent(path, recipe=small, limit_s=1e-6)
    before = (path / "demo.json").read_bytes()
    rename = Path.rename

    def refuse_partial(self, target):
        if self.name.endswith(".partial"):
            raise OSError(errno.EACCES, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_partial)
    with pytest.raises(WriteError, match="refused"):
        silent(path, recipe=small, limit_s=1e-6, fresh=True)
    assert (path / "demo.json").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_no_demo_is_never_touched(tmp_path, small, fresh):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArgumentError, match="is no demo"):
        silent(tmp_path, recipe=small, fresh=fresh)
    with pytest.raises(ArgumentError, match="is no demo"):
        silent(tmp_path / "thesis.tex", recipe=small, fresh=fresh)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_filled(tmp_path, small):
    path = tmp_path / "empty"
    path.mkdir()
    assert not silent(path, recipe=small, limit_s=1e-6).found
    assert (path / "demo.json").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 99}', '{"format": 1, "recipe": {}}'])
def test_a_damaged_record_is_told_and_fresh_starts_anew(tmp_path, small, damage):
    path = tmp_path / "demo"
    path.mkdir()
    (path / "demo.json").write_text(damage)
    with pytest.raises(FormatError, match="--fresh"):
        silent(path, recipe=small)
    assert not silent(path, recipe=small, limit_s=1e-6, fresh=True).found


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path, small):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        silent(tmp_path / "file" / "demo", recipe=small)
