"""The tensors in the files of a `global_stepN/`, sorted by weight and rank, and checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pythia_fast.core import File
from pythia_fast.errors import MissingCheckpointError, WeightsError
from pythia_fast.series.checkpoint import WEIGHT_DTYPES, CheckpointFile, refuse_pointer
from pythia_fast.series.gpt_neox.files import Shards
from pythia_fast.series.gpt_neox.merging import merged_shape
from pythia_fast.series.gpt_neox.rules import (
    EMBEDDING,
    QUERY_KEY_VALUE,
    Merge,
    is_buffer,
    layers_with_weights,
    layers_without_weights,
    place,
)
from pythia_fast.series.tensors import TensorRange
from pythia_fast.series.torch_zip import read_torch_state
from pythia_fast.suite.architecture import Architecture
from pythia_fast.words import listed

_IN_SEQUENCE = re.compile(r"sequential\.(\d{1,5})\.(.+)", re.ASCII | re.DOTALL)
_NAMED_AT_MOST = 4

Opened = Sequence[tuple[CheckpointFile, File]]
Pieces = dict[str, list[TensorRange]]
"""Hugging Face name -> the parts of rank 0, 1, …; each part has that name."""


def read_pieces(
    shards: Shards, opened: Opened, architecture: Architecture, folder: Path
) -> tuple[Pieces, Mapping[str, Merge]]:
    """Every weight's parts, and the rule by which they become one.

    WeightsError if the tensors are not the architecture's, or if parts differ in shape or dtype, or
    are not what the architecture has, cut into so many; FormatError and its kinds. That no file is
    missing is for `require_all`.
    """
    layers = architecture.layers
    pieces: Pieces = {}
    rules: dict[str, Merge] = {}
    for description, file in opened:
        _, rank = shards.where(description.name)
        for (layer, key), tensor in tensors_of(shards, description, file).items():
            if is_buffer(layer, key, layers):
                continue
            found = place(layer, key, layers)
            if found is None:
                raise WeightsError(
                    f"{description.path} has {key[:200]!r} in layer {layer}, which is no weight of "
                    f"a GPT-NeoX of {layers} layers as it is read here"
                )
            name, rule = found
            rules[name] = rule
            ranks = pieces.setdefault(name, [])
            if len(ranks) != rank:
                what = "lacks" if len(ranks) < rank else "has twice"
                raise WeightsError(
                    f"rank {len(ranks) if len(ranks) < rank else rank} of {folder} {what} {name}"
                )
            ranks.append(replace(tensor, name=name))
    _check_pieces(pieces, rules, shards.ranks, architecture, folder)
    return pieces, rules


def count_vocab_rows(shards: Shards, folder: Path) -> int:
    """The rows of the embedding, all ranks together, from the headers of its files."""
    if shards.layers is not None and 0 not in shards.layers:
        raise _lacks_layers([0], shards.ranks, folder, "any GPT-NeoX has")
    rows = 0
    for rank in range(shards.ranks):
        path = folder / shards.name(rank, 0)
        tensor = _tensors_at(shards, path).get((0, EMBEDDING))
        if tensor is None or len(tensor.shape) != 2:
            raise WeightsError(f"{path} has no matrix {EMBEDDING} in layer 0")
        rows += tensor.shape[0]
    return rows


def require_all(shards: Shards, architecture: Architecture, folder: Path) -> None:
    """MissingCheckpointError if files of whole layers or whole ranks are not there.

    Into how many ranks a matrix was cut is told by the part of rank 0, of which the header is read.
    WeightsError for layers that the architecture does not have; FormatError and its kinds.
    """
    if shards.layers is not None:
        _check_layers(shards, architecture.layers, folder)
    tensor = _tensors_at(shards, folder / shards.name(0, 2)).get((2, QUERY_KEY_VALUE))
    whole = 3 * architecture.width
    if tensor is None or tensor.shape[1:] != (architecture.width,) or not tensor.shape[0]:
        return  # not what it should be, as is said when it is opened
    ranks, rest = divmod(whole, tensor.shape[0])
    if rest or ranks <= shards.ranks:
        return
    missing = range(shards.ranks, ranks)
    raise MissingCheckpointError(
        f"{folder} lacks all files of rank {listed(missing, _NAMED_AT_MOST)}: its weights are cut "
        f"into {ranks} model-parallel ranks, and those of {shards.ranks} are there; the first "
        f"that is missing is {shards.name(missing[0], 0)}"
    )


def tensors_of(
    shards: Shards, description: CheckpointFile, file: File
) -> dict[tuple[int, str], TensorRange]:
    """(layer of GPT-NeoX, its key) -> tensor, for one file."""
    refuse_pointer(file)
    layer, _ = shards.where(description.name)
    if layer is not None:
        tensors = read_torch_state(file) or {}
        return {(layer, key): tensor for key, tensor in tensors.items()}
    module = read_torch_state(file, "module")
    if module is None:
        raise WeightsError(
            f"{description.path} holds no weights under 'module', and there are no files "
            "layer_XX-model_YY-model_states.pt beside it: is only a part of the checkpoint here?"
        )
    found: dict[tuple[int, str], TensorRange] = {}
    for name, tensor in module.items():
        match = _IN_SEQUENCE.fullmatch(name)
        if match is None or (int(match[1]), match[2]) in found:
            raise WeightsError(
                f"{description.path} has {name[:200]!r}, which is not sequential.<layer>.<weight>"
            )
        found[int(match[1]), match[2]] = tensor
    return found


def _tensors_at(shards: Shards, path: Path) -> dict[tuple[int, str], TensorRange]:
    file = File(path)
    return tensors_of(shards, CheckpointFile(path.name, path, file.size, None), file)


def _check_layers(shards: Shards, layers: int, folder: Path) -> None:
    """There is a file for every layer with weights, and for none that the model does not have."""
    found = set(shards.layers or ())
    wanted = layers_with_weights(layers)
    stray = sorted(found - set(wanted) - set(layers_without_weights(layers)))
    if stray:
        raise WeightsError(
            f"{folder} is not a GPT-NeoX of {layers} layers, as its config says, which are the "
            f"numbers 2 to {layers + 1}: it has the stray {listed(stray, _NAMED_AT_MOST)}"
        )
    if missing := sorted(set(wanted) - found):
        raise _lacks_layers(
            missing, shards.ranks, folder, f"one of {layers} layers has, as its config says"
        )


def _lacks_layers(
    layers: Sequence[int], ranks: int, folder: Path, why: str
) -> MissingCheckpointError:
    first = Shards(ranks, (layers[0],)).name(0, layers[0])
    return MissingCheckpointError(
        f"{folder} lacks all files of layer {listed(layers, _NAMED_AT_MOST)}, as GPT-NeoX counts, "
        f"which {why}: the first is {first}"
    )


def _check_pieces(
    pieces: Pieces, rules: Mapping[str, Merge], ranks: int, architecture: Architecture, folder: Path
) -> None:
    """All weights are there, of every rank, and their parts are what the whole gives when cut."""
    if architecture.layers > sum(map(len, pieces.values())):  # before a table of so many is made
        raise WeightsError(f"{folder} holds fewer tensors than its config says layers")
    complaints = []
    for name, shape in architecture.shapes().items():
        parts = pieces.get(name, [])
        if len(parts) != ranks:
            complaints.append(f"{name} is there of {len(parts)} ranks, not {ranks}")
            continue
        if len({(part.shape, part.dtype) for part in parts}) > 1:
            kinds = (f"{part.dtype} {list(part.shape)}" for part in parts)
            complaints.append(f"{name} differs from rank to rank: {listed(kinds, _NAMED_AT_MOST)}")
        elif (whole := merged_shape(rules[name], parts[0].shape, ranks)) != shape:
            complaints.append(
                f"{name} is {list(parts[0].shape)} in each of {ranks} ranks, {list(whole)} "
                f"together, not {list(shape)}"
            )
        elif parts[0].dtype not in WEIGHT_DTYPES:
            complaints.append(f"{name} is {parts[0].dtype}, none of {', '.join(WEIGHT_DTYPES)}")
    if complaints:
        raise WeightsError(
            f"the weights of {folder} are not those that its config describes: "
            + listed(complaints, _NAMED_AT_MOST, between="; ")
        )
