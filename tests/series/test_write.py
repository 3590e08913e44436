"""What is written is read back by the libraries themselves, and is never there by halves."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXForCausalLM

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.series import write_checkpoint, write_safetensors, write_torch_zip
from pythia_fast.suite import Architecture
from pythia_fast.testing import random_state_dict


def load_torch(path: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.parametrize(
    ("write", "load"), [(write_safetensors, load_file), (write_torch_zip, load_torch)]
)
def test_one_file(tmp_path: Path, write, load) -> None:
    base = torch.arange(1000.0)
    tensors = {
        "whole": base,
        "again": base,
        "a view": base[:10],
        "transposed": torch.arange(6).reshape(2, 3).T,
        "learnt": torch.nn.Parameter(torch.ones(3).bfloat16()),
        "scalar": torch.tensor(2.5),
        "empty": torch.ones(0, 4),
    }
    path = tmp_path / "weights"
    path.write_bytes(b"an older one")
    write(path, tensors)
    loaded = load(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].untyped_storage().nbytes() <= max(tensor.nbytes, 1) or load is load_file
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["weights"]


@pytest.mark.parametrize("write", [write_safetensors, write_torch_zip])
def test_the_same_tensors_give_the_same_bytes(tmp_path: Path, write) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, {"x": torch.arange(10.0), "y": torch.ones(3).half()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("write", [write_safetensors, write_torch_zip])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "weights"
    path.write_bytes(b"an older one")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WriteError, match=r"weights.*No space left"):
        write(path, {"x": torch.ones(2)})
    assert path.read_bytes() == b"an older one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


@pytest.mark.parametrize("shard_bytes", [None, 40_000])
@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_transformers_loads_a_checkpoint(
    tmp_path: Path, tiny: Architecture, format, shard_bytes: int | None
) -> None:
    state_dict = random_state_dict(tiny, step=3)
    folder = tmp_path / "deep" / "step3"
    write_checkpoint(folder, state_dict, tiny, format=format, max_shard_bytes=shard_bytes)
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float16)
    loaded = {n.replace("lm_head", "embed_out"): t for n, t in model.state_dict().items()}
    assert loaded.keys() == state_dict.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state_dict.items())
    if shard_bytes is not None:
        (index,) = folder.glob("*.index.json")
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
        assert {path.name for path in folder.iterdir()} == {*shards, index.name, "config.json"}
        assert len(shards) > 2
        assert all((folder / shard).stat().st_size < shard_bytes + 10_000 for shard in shards)


def test_what_cannot_be_written_is_refused(tmp_path: Path, tiny: Architecture) -> None:
    state_dict = random_state_dict(tiny)
    with pytest.raises(ArgumentError, match="format"):
        write_checkpoint(tmp_path, state_dict, tiny, format="onnx")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_shard_bytes"):
        write_checkpoint(tmp_path, state_dict, tiny, max_shard_bytes=0)
    write_checkpoint(tmp_path / "a", state_dict, tiny, max_shard_bytes=40_000)
    with pytest.raises(ArgumentError, match="already holds weights"):
        write_checkpoint(tmp_path / "a", state_dict, tiny, format="torch")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write .*/file is a file, not a folder"):
        write_checkpoint(tmp_path / "file" / "step0", state_dict, tiny)
    with pytest.raises(WriteError, match="nowhere"):
        write_safetensors(tmp_path / "nowhere" / "x", state_dict)
