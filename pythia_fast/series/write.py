"""Writes checkpoints in the Hub's layout; a file gets its final name only when it is complete."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from pythia_fast.errors import ArgumentError, WriteError
from pythia_fast.series.layout import CONFIG, INDEX_SUFFIX, SINGLE_FILES
from pythia_fast.suite.architecture import Architecture

if TYPE_CHECKING:
    import torch

CheckpointFormat = Literal["safetensors", "torch"]

_NAMES: Mapping[str, str] = {"torch": "pytorch_model.bin", "safetensors": "model.safetensors"}


def write_safetensors(path: str | Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write `tensors` as one safetensors file; an existing file is replaced in one step."""
    from safetensors.torch import save_file

    with _replacing(Path(path)) as file:
        save_file(_dense(tensors), file.name, metadata={"format": "pt"})


def write_torch_zip(path: str | Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write `tensors` as `torch.save` does; an existing file is replaced in one step."""
    import torch

    # In a thread, which no Ctrl-C reaches: torch's writer, interrupted half-way, ends the process
    # when it finds its file closed.
    with _replacing(Path(path)) as file, ThreadPoolExecutor(1, "pythia_fast-save") as pool:
        pool.submit(torch.save, _dense(tensors), file).result()


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
    if format not in _NAMES:
        raise ArgumentError(f'format is "safetensors" or "torch", not {format!r}')
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ArgumentError(f"max_shard_bytes is at least 1, not {max_shard_bytes}")
    folder = Path(folder)
    for name in SINGLE_FILES:
        if (folder / name).exists() or (folder / (name + INDEX_SUFFIX)).exists():
            raise ArgumentError(f"{folder} already holds weights; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made: {error.strerror}") from error
    write = write_torch_zip if format == "torch" else write_safetensors
    _write_json(folder / CONFIG, architecture.to_config())
    shards = _cut(state_dict, max_shard_bytes)
    whole = Path(_NAMES[format])
    if len(shards) == 1:
        write(folder / whole, state_dict)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        shard_name = f"{whole.stem}-{number:05}-of-{len(shards):05}{whole.suffix}"
        write(folder / shard_name, {tensor: state_dict[tensor] for tensor in shard})
        weight_map |= dict.fromkeys(shard, shard_name)
    total_bytes = sum(tensor.nbytes for tensor in state_dict.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    _write_json(folder / (whole.name + INDEX_SUFFIX), index)


def _cut(state_dict: Mapping[str, "torch.Tensor"], limit_bytes: int | None) -> list[list[str]]:
    """The tensors' names, in order, in groups of at most `limit_bytes`."""
    shards: list[list[str]] = [[]]
    filled_bytes = 0
    for name, tensor in state_dict.items():
        if shards[-1] and limit_bytes is not None and filled_bytes + tensor.nbytes > limit_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(name)
        filled_bytes += tensor.nbytes
    return shards


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


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with _replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its name once it is written and on the disk.

    WriteError if the operating system refuses; the half-written file is then removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
