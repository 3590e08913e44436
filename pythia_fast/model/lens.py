"""What each layer knows: the residual stream, and the next tokens that are read from it.

A logit lens puts the final LayerNorm and the unembedding after every block, not only the last.
Layers are numbered as transformers numbers hidden states: 0 is the embedding's output, i the output
of block i - 1, L the model's own.
B batch, T time, D width, V vocabulary rows, L layers.
"""

import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import embedding, linear

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.cross_entropy import linear_scores
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model import neox
from pythia_fast.model.ids import target_count
from pythia_fast.model.passes import finish
from pythia_fast.model.scoring import in_passes

if TYPE_CHECKING:
    from pythia_fast.model.model import Model


def hidden_states(
    model: "Model", ids_BT: torch.Tensor, layers: Iterable[int] | None
) -> dict[int, torch.Tensor]:
    """See `Model.hidden_states`."""
    places = _places(layers, model.architecture.layers)
    last = model.architecture.layers
    found = _room(model, ids_BT, places, model.architecture.width)

    def work(rows: slice) -> None:
        for layer, x_BTD in _residual_stream(model, ids_BT[rows], _deepest(places)):
            if layer in found:
                found[layer][rows] = x_BTD if layer < last else _final_norm(model, x_BTD)

    finish(in_passes(model, ids_BT, work))
    return {asked: found[layer] for asked, layer in places.items()}


def logit_lens(
    model: "Model", ids_BT: torch.Tensor, layers: Iterable[int] | None
) -> dict[int, torch.Tensor]:
    """See `Model.logit_lens`."""
    places = _places(layers, model.architecture.layers)
    found = _room(model, ids_BT, places, model.architecture.vocab_rows)

    def work(rows: slice) -> None:
        if model.kernels is not None:
            into = {layer: logits_BTV[rows] for layer, logits_BTV in found.items()}
            model.kernels.lens_into(ids_BT[rows], model.weights, into)
            return
        for layer, x_BTD in _residual_stream(model, ids_BT[rows], _deepest(places)):
            if layer in found:
                h_BTD = _final_norm(model, x_BTD)
                found[layer][rows] = linear(h_BTD, model.weights.unembed_VD)

    finish(in_passes(model, ids_BT, work))
    return {asked: found[layer] for asked, layer in places.items()}


def lens_scores(
    model: "Model", ids_BT: torch.Tensor, layers: Iterable[int] | None, start: int
) -> dict[int, TokenScores]:
    """See `Model.lens_scores`."""
    places = _places(layers, model.architecture.layers)
    parts: dict[int, list[TokenScores]] = {layer: [] for layer in places.values()}
    shape = len(ids_BT), target_count(ids_BT, start)

    def work(rows: slice) -> dict[int, TokenScores]:
        ids, y_BT = ids_BT[rows, :-1], ids_BT[rows, 1:]
        if model.kernels is not None:
            scores = model.kernels.lens_scores(ids, y_BT, model.weights, start, set(parts))
            return {
                layer: found.map(lambda x_BT: x_BT.reshape(-1)) for layer, found in scores.items()
            }
        found = {}
        for layer, x_BTD in _residual_stream(model, ids, _deepest(places)):
            if layer in parts:
                h_ND = _final_norm(model, x_BTD[:, start:]).flatten(0, 1)
                y_N = y_BT[:, start:].flatten()
                found[layer] = linear_scores(h_ND, model.weights.unembed_VD, y_N)
        return found

    for _, found in in_passes(model, ids_BT, work) if shape[1] else ():
        for layer, scores in found.items():
            parts[layer].append(scores)
    joined = {layer: TokenScores.joined(some, shape, model.device) for layer, some in parts.items()}
    return {asked: joined[layer] for asked, layer in places.items()}


def _places(layers: Iterable[int] | None, last: int) -> dict[int, int]:
    """The layers as they were asked for, each with its number from the front. ArgumentError."""
    try:
        asked = list(range(last + 1)) if layers is None else [operator.index(i) for i in layers]
    except TypeError as error:
        raise ArgumentError(f"layers are numbers such as [0, {last}], not {layers!r}") from error
    for layer in asked:
        if not -last - 1 <= layer <= last:
            raise ArgumentError(f"layers are 0 to {last} (or -1 to {-last - 1}), got {layer}")
    return {layer: layer % (last + 1) for layer in asked}


def _deepest(places: dict[int, int]) -> int:
    """The last layer that is looked at; no block after it is computed."""
    return max(places.values(), default=0)


def _room(
    model: "Model", ids_BT: torch.Tensor, places: dict[int, int], size: int
) -> dict[int, torch.Tensor]:
    shape = *ids_BT.shape, size
    return {
        layer: torch.empty(shape, dtype=model.dtype, device=model.device)
        for layer in places.values()
    }


def _residual_stream(
    model: "Model", ids_BT: torch.Tensor, deepest: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The residual stream before each block up to `deepest`, with its number, [B, T, D]."""
    if model.kernels is not None:
        for layer, x_BTD in model.kernels.residual_stream(ids_BT, model.weights, deepest):
            yield layer, x_BTD.to(model.dtype)
        return
    x_BTD = embedding(ids_BT, model.weights.embed_VD)
    yield 0, x_BTD
    for layer, weights in enumerate(model.weights.layers[:deepest], start=1):
        x_BTD = neox.block(x_BTD, weights, model.shape)
        yield layer, x_BTD


def _final_norm(model: "Model", x_BTD: torch.Tensor) -> torch.Tensor:
    return neox.layer_norm(x_BTD, model.weights.final_norm, model.shape.epsilon)
