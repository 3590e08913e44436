"""Writes checkpoints in the Hub's layout; a file gets its final name only when it is complete."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pythia_fast.errors import ArgumentError
from pythia_fast.publish import make_folder, published, sync_folder, writing
from pythia_fast.series.layout import CONFIG, INDEX_SUFFIX, SINGLE_FILES
from pythia_fast.suite.architecture import Architecture

if TYPE_CHECKING:
    import torch

CheckpointFormat = Literal["safetensors", "torch"]

_NAMES: Mapping[str, str] = {"torch": "pytorch_model.bin", "safetensors": "model.safetensors"}


def write_safetensors(path: str | Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write `tensors` as one safetensors file; an existing file is replaced in one step."""
    from safetensors.torch import save_file

    with published(Path(path)) as file:
        save_file(_dense(tensors), file.name, metadata={"format": "pt"})
    _keep(Path(path))


def write_torch_zip(path: str | Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write `tensors` as `torch.save` does; an existing file is replaced in one step."""
    import torch

    # In a thread, which no Ctrl-C reaches: torch's writer, interrupted half-way, ends the process
    # when it finds its file closed.
    with published(Path(path)) as file, ThreadPoolExecutor(1, "pythia_fast-save") as pool:
        pool.submit(torch.save, _dense(tensors), file).result()
    _keep(Path(path))


def write_checkpoint(
    folder: str | Path,
    state_dict: Mapping[str, "torch.Tensor"],
    architecture: Architecture,
    *,
    format: CheckpointFormat = "safetensors",
    max_shard_bytes: int | None = None,
) -> None:
    """Write weights and config.json into `folder`, which is created and must hold no weights yet.

    `format` "safetensors" gives model.safetensors, "torch" pytorch_model.bin. Above
    `max_shard_bytes` the weights are cut into shards of at most that size, or of one tensor, with
    an index. The index comes after the shards, so that a folder cut short in between counts as
    incomplete.
    """
    check_format(format, max_shard_bytes)
    folder = Path(folder)
    for name in SINGLE_FILES:
        if (folder / name).exists() or (folder / (name + INDEX_SUFFIX)).exists():
            raise ArgumentError(f"{folder} already holds weights; choose another folder")
    make_folder(folder)
    write = write_torch_zip if format == "torch" else write_safetensors
    write_json(folder / CONFIG, architecture.to_config())
    shards = cut({n: t.nbytes for n, t in state_dict.items()}, format, max_shard_bytes)
    for shard, names in shards.items():
        write(folder / shard, {name: state_dict[name] for name in names})
    if len(shards) > 1:
        total_bytes = sum(tensor.nbytes for tensor in state_dict.values())
        write_json(folder / index_name(format), index_of(shards, total_bytes))


def check_format(format: str, max_shard_bytes: int | None) -> None:
    """ArgumentError unless they are what `write_checkpoint` takes."""
    if format not in _NAMES:
        raise ArgumentError(f'format is "safetensors" or "torch", not {format!r}')
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ArgumentError(f"max_shard_bytes is at least 1, not {max_shard_bytes}")


def cut(
    sizes: Mapping[str, int], format: CheckpointFormat, limit_bytes: int | None
) -> dict[str, list[str]]:
    """File name -> the tensors in it, in order, of together at most `limit_bytes` or one tensor."""
    groups: list[list[str]] = [[]]
    filled_bytes = 0
    for name, nbytes in sizes.items():
        if groups[-1] and limit_bytes is not None and filled_bytes + nbytes > limit_bytes:
            groups.append([])
            filled_bytes = 0
        groups[-1].append(name)
        filled_bytes += nbytes
    whole = Path(_NAMES[format])
    if len(groups) == 1:
        return {whole.name: groups[0]}
    return {
        f"{whole.stem}-{number:05}-of-{len(groups):05}{whole.suffix}": group
        for number, group in enumerate(groups, start=1)
    }


def index_name(format: CheckpointFormat) -> str:
    """What the index of shards is called."""
    return _NAMES[format] + INDEX_SUFFIX


def index_of(shards: Mapping[str, Sequence[str]], total_bytes: int) -> dict[str, object]:
    """The index that says which shard has which tensor."""
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    return {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}


def _dense(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The tensors on the CPU, each alone in its storage: views of an arena would drag it along."""
    dense = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        ours = tensor.detach().cpu().contiguous()
        storage = ours.untyped_storage()
        if storage.nbytes() != ours.nbytes or storage.data_ptr() in taken:
            ours = ours.clone()
        taken.add(ours.untyped_storage().data_ptr())
        dense[name] = ours
    return dense


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object; an existing file is replaced in one step."""
    with published(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
    _keep(path)


def _keep(path: Path) -> None:
    """Bring to the disk that the file has its name."""
    with writing(path):
        sync_folder(path.parent)
