"""What GPT-NeoX calls each weight, and how the parts of its ranks become one tensor.

The layers are those of its pipeline: 0 is the embedding, i + 2 block i, L + 3 the last LayerNorm,
L + 4 the unembedding; 1 and L + 2 are functions without weights (L layers of the model).
"""

from collections.abc import Mapping
from enum import Enum, auto


class Merge(Enum):
    """How parts become a whole: side by side along dimension 0 or 1, added up, or averaged."""

    ROWS = auto()
    COLUMNS = auto()
    SUM = auto()
    MEAN = auto()


_BLOCK: Mapping[str, Merge] = {
    "input_layernorm.weight": Merge.MEAN,
    "input_layernorm.bias": Merge.MEAN,
    "post_attention_layernorm.weight": Merge.MEAN,
    "post_attention_layernorm.bias": Merge.MEAN,
    "attention.query_key_value.weight": Merge.ROWS,
    "attention.query_key_value.bias": Merge.ROWS,
    "attention.dense.weight": Merge.COLUMNS,
    "attention.dense.bias": Merge.SUM,
    "mlp.dense_h_to_4h.weight": Merge.ROWS,
    "mlp.dense_h_to_4h.bias": Merge.ROWS,
    "mlp.dense_4h_to_h.weight": Merge.COLUMNS,
    "mlp.dense_4h_to_h.bias": Merge.SUM,
}
"""As GPT-NeoX's tools/ckpts/convert_neox_to_hf.py has it. A rank's bias of a product whose columns
are shared is its share of the whole bias."""

_NEWER = {
    "mlp.linear1.weight": "mlp.dense_h_to_4h.weight",
    "mlp.linear1.bias": "mlp.dense_h_to_4h.bias",
    "mlp.linear2.weight": "mlp.dense_4h_to_h.weight",
    "mlp.linear2.bias": "mlp.dense_4h_to_h.bias",
}
_BUFFER = "attention.rotary_emb.inv_freq"
EMBEDDING = "word_embeddings.weight"
QUERY_KEY_VALUE = "attention.query_key_value.weight"


def place(layer: int, key: str, layers: int) -> tuple[str, Merge] | None:
    """The Hugging Face name and the rule of `key` in a layer of GPT-NeoX; None if it is none.

    `layers` are the model's.
    """
    block = layer - 2
    if 0 <= block < layers:
        bare = _NEWER.get(key, key)
        return (f"gpt_neox.layers.{block}.{bare}", _BLOCK[bare]) if bare in _BLOCK else None
    ends: Mapping[tuple[int, str], tuple[str, Merge]] = {
        (0, EMBEDDING): ("gpt_neox.embed_in.weight", Merge.ROWS),
        (layers + 3, "norm.weight"): ("gpt_neox.final_layer_norm.weight", Merge.MEAN),
        (layers + 3, "norm.bias"): ("gpt_neox.final_layer_norm.bias", Merge.MEAN),
        (layers + 4, "final_linear.weight"): ("embed_out.weight", Merge.ROWS),
    }
    return ends.get((layer, key))


def is_buffer(layer: int, key: str, layers: int) -> bool:
    """Whether it is a table that every rank has alike, and that the model computes itself."""
    return 2 <= layer < layers + 2 and key == _BUFFER


def layers_with_weights(layers: int) -> list[int]:
    """The layers of GPT-NeoX that hold weights, for a model of `layers`."""
    return [0, *range(2, layers + 2), layers + 3, layers + 4]


def layers_without_weights(layers: int) -> tuple[int, int]:
    """Those that are functions; a file of theirs is empty, if there is one."""
    return 1, layers + 2
