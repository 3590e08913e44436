"""The same scores in float32, whatever the resident dtype: the referee for near ties.

One block's weights (or one embedding) are in memory in float32 at a time, read from the checkpoint
that the resident weights came from. Each sequence is computed alone, so that its scores do not
depend on the batch around it.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from pythia_fast.kernels.cross_entropy import linear_scores
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model.neox import Shape, block, layer_norm
from pythia_fast.model.parameters import BlockWeights, Layout, Norm, Place, parameters
from pythia_fast.model.weights import Weights, read_places
from pythia_fast.series.checkpoint import Checkpoint


class FromArena:
    """Float32 weights from a resident arena: its own views if it is float32, else copies."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def embed(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """The embeddings of ids, [B, T, D]."""
        return self.weights.embed_VD[ids_BT].float()

    def blocks(self) -> Iterator[BlockWeights]:
        """Each block in turn, valid until the next."""
        weights = self.weights
        if weights.dtype == torch.float32:
            yield from weights.layers
            return
        layout = _one_block(weights)
        flat = torch.zeros(layout.numel, device=weights.device)
        one = parameters(layout, flat).layers[0]
        for resident in weights.layers:
            _copy(one, resident)
            yield one

    def final_norm(self) -> Norm:
        """The LayerNorm before the unembedding."""
        return Norm(*(tensor.float() for tensor in self.weights.final_norm))

    def unembed_VD(self) -> torch.Tensor:
        """The output embedding."""
        return self.weights.unembed_VD.float()


class FromCheckpoint:
    """Float32 weights read from a checkpoint's files, for a model on `weights.device`."""

    def __init__(self, checkpoint: Checkpoint, weights: Weights) -> None:
        self.tensors = checkpoint.tensors
        self.weights = weights

    def embed(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """The embeddings of ids, [B, T, D]; only their rows are read."""
        table = self.tensors["gpt_neox.embed_in.weight"]
        used_U, index_BT = torch.unique(ids_BT, return_inverse=True)
        width = table.shape[1]
        row_bytes = table.nbytes // table.shape[0]
        rows_UD = torch.empty(len(used_U), width)
        read_places(
            (
                (
                    replace(table, offset=table.offset + token * row_bytes, shape=(1, width)),
                    Place(row * width, (1, width), 1, width, width),
                )
                for row, token in enumerate(used_U.tolist())
            ),
            rows_UD.flatten(),
        )
        return rows_UD.to(ids_BT.device)[index_BT]

    def blocks(self) -> Iterator[BlockWeights]:
        """Each block in turn, valid until the next."""
        layout = _one_block(self.weights)
        names = [name for name in layout.places if name.startswith("gpt_neox.layers.0.")]
        flat = torch.zeros(layout.numel)
        for layer in range(self.weights.architecture.layers):
            read_places(
                (
                    (
                        self.tensors[name.replace("layers.0.", f"layers.{layer}.", 1)],
                        layout.places[name],
                    )
                    for name in names
                ),
                flat,
            )
            one = parameters(layout, flat.to(self.weights.device)).layers[0]
            torch.add(one.attention_out_bias_D, one.mlp_out_bias_D, out=one.out_bias_D)
            yield one

    def final_norm(self) -> Norm:
        """The LayerNorm before the unembedding."""
        weight, bias = "gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"
        return Norm(self._whole(weight), self._whole(bias))

    def unembed_VD(self) -> torch.Tensor:
        """The output embedding."""
        return self._whole("embed_out.weight")

    def _whole(self, name: str) -> torch.Tensor:
        tensor = self.tensors[name]
        rows, columns = (1, *tensor.shape)[-2:]
        values = torch.empty(tensor.shape)
        read_places([(tensor, Place(0, tensor.shape, rows, columns, columns))], values.flatten())
        return values.to(self.weights.device)


@torch.inference_mode()
def exact_scores(
    ids_BT: torch.Tensor, source: FromArena | FromCheckpoint, shape: Shape, start: int
) -> TokenScores:
    """Scores of the targets after position `start`, [B, T - 1 - start], in float32."""
    sequences = [source.embed(ids_1T[:, :-1]) for ids_1T in torch.split(ids_BT, 1)]
    for weights in source.blocks():
        sequences = [block(x_1TD, weights, shape) for x_1TD in sequences]
    norm, unembed_VD = source.final_norm(), source.unembed_VD()
    parts = []
    for x_1TD, ids_1T in zip(sequences, torch.split(ids_BT, 1), strict=True):
        h_ND = layer_norm(x_1TD[0, start:], norm, shape.epsilon)
        parts.append(linear_scores(h_ND, unembed_VD, ids_1T[0, start + 1 :]))
    return TokenScores.cat([part.map(lambda x_N: x_N[None]) for part in parts])


def _one_block(weights: Weights) -> Layout:
    """The map of an arena with a single block, in float32."""
    return Layout(replace(weights.architecture, layers=1, vocab_rows=1), torch.float32.itemsize)


def _copy(to: BlockWeights, source: BlockWeights) -> None:
    """Every weight of a block into another of another dtype."""
    for field in BlockWeights.__dataclass_fields__:
        mine, theirs = getattr(to, field), getattr(source, field)
        if isinstance(mine, Norm):
            mine.weight_D.copy_(theirs.weight_D)
            mine.bias_D.copy_(theirs.bias_D)
        else:
            mine.copy_(theirs)
    torch.add(to.attention_out_bias_D, to.mlp_out_bias_D, out=to.out_bias_D)
