"""Small series in every layout; served, they are a repository for everybody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from pythia_fast.errors import ArgumentError
from pythia_fast.series import LocalSeries
from pythia_fast.testing import HubServer, branches, random_state_dict, tiny, tiny_suite
from pythia_fast.testing.suite import TINY_STEPS, training_state_dict

USERS = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer

ids, losses = [], []
for revision in ("step0", "step512", "main"):
    model = AutoModelForCausalLM.from_pretrained("me/tiny", revision=revision, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained("me/tiny", revision=revision)
    batch = tokenizer("Where is the sea?", return_tensors="pt")
    ids.append(batch["input_ids"][0].tolist())
    losses.append(model(**batch, labels=batch["input_ids"]).loss.item())
folder = snapshot_download("me/tiny", revision="step16")
path = hf_hub_download("me/tiny", "config.json", revision="step16")
names = [branch.name for branch in HfApi().list_repo_refs("me/tiny").branches]
print(json.dumps([ids, losses, folder, path, names]))
"""


@pytest.mark.parametrize("redirect", [False, True])
def test_huggingface_hub_and_transformers_work_against_it(redirect: bool, tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "suite")
    with HubServer({"me/tiny": branches(suite)}, redirect=redirect) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", USERS],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert hub.count("/cdn/") == (4 if redirect else 0)
    ids, losses, folder, path, names = json.loads(done.stdout)
    assert ids == [list(b"Where is the sea?")] * 3
    for step, loss in zip((0, 512, 1000), losses, strict=True):
        model = GPTNeoXForCausalLM.from_pretrained(suite / f"step{step}", dtype=torch.float32)
        batch = torch.tensor([ids[0]])
        assert model(batch, labels=batch).loss.item() == pytest.approx(loss, rel=1e-5)
    assert Path(path).parent == Path(folder)
    for file in (suite / "step16").iterdir():
        assert (Path(folder) / file.name).read_bytes() == file.read_bytes()
    assert names == ["main", *(f"step{step}" for step in TINY_STEPS)]


@pytest.mark.parametrize("layout", ["mixed", "safetensors", "torch"])
@pytest.mark.parametrize("shard_bytes", [None, 50_000])
def test_layouts_of_the_hub(layout: str, shard_bytes: int | None, tmp_path: Path) -> None:
    suite = tiny_suite(
        tmp_path / "s", steps=(0, 1, 2), layout=layout, shard_bytes=shard_bytes, copies={1: 0}
    )
    series = LocalSeries(suite)
    assert series.steps == (0, 1, 2)
    first, second, third = (series.open(step) for step in series.steps)
    assert first.weights_sha256 == second.weights_sha256 != third.weights_sha256
    assert (len(third.files) > 1) == (shard_bytes is not None)
    assert (suite / "tokenizer.json").exists()
    assert (suite / "step2/tokenizer.json").exists()


@pytest.mark.parametrize("layout", ["gpt-neox layers", "gpt-neox ranks"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_layouts_of_gpt_neox(layout: str, ranks: int, tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 3), layout=layout, model_parallel=ranks)
    names = sorted(path.name for path in (suite / "global_step3").glob("*.pt"))
    assert len([name for name in names if name.startswith("mp_rank_")]) == ranks
    assert any(name.startswith("layer_") for name in names) == (layout == "gpt-neox layers")
    assert list(branches(suite)) == ["main", "step0", "step3"]
    assert branches(suite)["main"] == suite / "global_step3"


def test_the_layout_does_not_change_the_weights(tmp_path: Path) -> None:
    shape = tiny(vocab_rows=64)
    one = tiny_suite(tmp_path / "a", steps=(4,), layout="torch", architecture=shape)
    two = tiny_suite(tmp_path / "b", steps=(4,), layout="gpt-neox layers", architecture=shape)
    assert not (one / "tokenizer.json").exists()
    weights = torch.load(one / "step4/pytorch_model.bin", weights_only=True)
    layer = torch.load(two / "global_step4/layer_00-model_00-model_states.pt", weights_only=True)
    embedding = weights["gpt_neox.embed_in.weight"]
    assert torch.equal(layer["word_embeddings.weight"], embedding)
    assert torch.equal(embedding, training_state_dict(shape, step=4)["gpt_neox.embed_in.weight"])


def test_weights_move_as_in_training() -> None:
    def distance(a: int, b: int) -> float:
        first, second = (training_state_dict(tiny(), step=step) for step in (a, b))
        name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
        return ((first[name] - second[name]).norm() / first[name].norm()).item()

    other, start = (random_state_dict(tiny(), step=step) for step in (1, 0))
    assert distance(142_000, 143_000) < distance(1000, 2000) < distance(0, 512) < 1.1
    assert distance(0, 143_000) > 0.9
    assert not torch.equal(other["gpt_neox.embed_in.weight"], start["gpt_neox.embed_in.weight"])


def test_what_a_suite_cannot_be(tmp_path: Path) -> None:
    for wrong in (
        {"layout": "pickle"},
        {"layout": "gpt-neox ranks", "shard_bytes": 9},
        {"layout": "torch", "model_parallel": 2},
        {"copies": {1: 3}},
        {"copies": {1: 2, 2: 0}},
    ):
        with pytest.raises(ArgumentError):
            tiny_suite(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


def test_branches_of_a_folder(tmp_path: Path) -> None:
    assert branches(tmp_path) == {"main": tmp_path}
    for name in ("step10", "step2", "step007", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "step11").write_text("a file")
    assert branches(tmp_path) == {
        "main": tmp_path / "step10",
        "step2": tmp_path / "step2",
        "step10": tmp_path / "step10",
    }
    (tmp_path / "global_step2").mkdir()
    with pytest.raises(ArgumentError, match="same step"):
        branches(tmp_path)
    with pytest.raises(ArgumentError, match="no folder"):
        branches(tmp_path / "no")
