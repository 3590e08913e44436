"""The shape of a GPT-NeoX model: what the forward pass must know, and nothing else.

L layers, D width, H heads, K = D / H head width, F = 4D feed-forward width, V vocabulary rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pythia_fast.errors import ArgumentError, FormatError

MOST_LAYERS, MOST = 10_000, 1 << 24
"""Sizes beyond any model, so that a hostile config cannot ask for endless tables."""

Activation = Literal["gelu", "gelu_tanh"]

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """GPT-NeoX by its numbers (arXiv:2204.06745, section 2; arXiv:2304.01373, table 1).

    `rotary_dims` of each head's dimensions are rotated (25% in Pythia), `vocab_rows` counts the
    padded rows of both embeddings, `max_positions` is the longest input in tokens.
    """

    layers: int
    width: int
    heads: int
    vocab_rows: int
    intermediate: int
    rotary_dims: int
    rotary_base: float = 10_000.0
    layer_norm_eps: float = 1e-5
    parallel_residual: bool = True
    activation: Activation = "gelu"
    max_positions: int = 2048

    def __post_init__(self) -> None:
        sizes = (self.width, self.heads, self.vocab_rows, self.intermediate, self.max_positions)
        if min(*sizes, self.layers) < 1 or max(sizes) > MOST or self.layers > MOST_LAYERS:
            raise ArgumentError(
                f"layers are 1 to {MOST_LAYERS}, other sizes 1 to {MOST}, got {self}"
            )
        if not (0 < self.layer_norm_eps < 1 and 1 <= self.rotary_base < math.inf):
            raise ArgumentError(
                "layer_norm_eps lies between 0 and 1 and rotary_base is at least 1, got "
                f"{self.layer_norm_eps} and {self.rotary_base}"
            )
        if self.width % self.heads:
            raise ArgumentError(f"width {self.width} is no multiple of {self.heads} heads")
        if self.rotary_dims % 2 or not 0 <= self.rotary_dims <= self.head_dim:
            raise ArgumentError(
                f"rotary_dims is even and at most the head's {self.head_dim}, "
                f"got {self.rotary_dims}"
            )

    def difference(self, other: "Architecture") -> str:
        """In what this one differs, in words: "vocab_rows 130, not 260"."""
        pairs = [
            (field.name, getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        ]
        return ", ".join(f"{name} {ours}, not {its}" for name, ours, its in pairs if ours != its)

    @property
    def head_dim(self) -> int:
        """K, the dimensions of one head."""
        return self.width // self.heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight under its Hugging Face name, with its shape, in the model's order."""
        d, f, v = self.width, self.intermediate, self.vocab_rows
        shapes: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (v, d)}
        for layer in range(self.layers):
            block = {
                "input_layernorm.weight": (d,),
                "input_layernorm.bias": (d,),
                "post_attention_layernorm.weight": (d,),
                "post_attention_layernorm.bias": (d,),
                "attention.query_key_value.weight": (3 * d, d),
                "attention.query_key_value.bias": (3 * d,),
                "attention.dense.weight": (d, d),
                "attention.dense.bias": (d,),
                "mlp.dense_h_to_4h.weight": (f, d),
                "mlp.dense_h_to_4h.bias": (f,),
                "mlp.dense_4h_to_h.weight": (d, f),
                "mlp.dense_4h_to_h.bias": (d,),
            }
            shapes |= {f"gpt_neox.layers.{layer}.{name}": shape for name, shape in block.items()}
        return shapes | {
            "gpt_neox.final_layer_norm.weight": (d,),
            "gpt_neox.final_layer_norm.bias": (d,),
            "embed_out.weight": (v, d),
        }

    @property
    def parameters(self) -> int:
        """All weights: 2VD + L(4D² + 2DF + 9D + F) + 2D; the block is 12D² + 13D where F = 4D."""
        return 2 * self.vocab_rows * self.width + self.non_embedding_parameters

    @property
    def non_embedding_parameters(self) -> int:
        """All weights but the two embeddings."""
        d, f = self.width, self.intermediate
        return self.layers * (4 * d * d + 2 * d * f + 9 * d + f) + 2 * d

    @classmethod
    def from_config(cls, config: Mapping[str, Any], path: str | Path) -> "Architecture":
        """Read a Hugging Face `config.json`, already parsed; `path` is for the error's text.

        FormatError if it is not a GPT-NeoX, lacks a size, or asks for what is not implemented.
        """
        try:
            return cls._from_config(config, path)
        except KeyError as error:
            raise FormatError(path, f"the key {error} is missing") from error
        except FormatError:
            raise
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise FormatError(path, f"a value makes no sense: {error}") from error

    @classmethod
    def _from_config(cls, config: Mapping[str, Any], path: str | Path) -> "Architecture":
        if config.get("model_type") != "gpt_neox":
            raise FormatError(path, f"model_type is {config.get('model_type')!r}, not 'gpt_neox'")
        if config.get("tie_word_embeddings"):
            raise FormatError(path, "tied embeddings are not GPT-NeoX as Pythia uses it")
        if not config.get("attention_bias", True):
            raise FormatError(path, "attention without biases is not GPT-NeoX as Pythia uses it")
        activation = _ACTIVATIONS.get(config.get("hidden_act", "gelu"))
        if activation is None:
            raise FormatError(path, f"hidden_act {config.get('hidden_act')!r} is not one of gelu's")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise FormatError(path, f"rotary embedding of type {rope!r} is not implemented")
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        share = rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
        base = rope.get("rope_theta", config.get("rotary_emb_base", 10_000))
        return cls(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            vocab_rows=int(config["vocab_size"]),
            intermediate=int(config["intermediate_size"]),
            rotary_dims=int(width // heads * float(share)),
            rotary_base=float(base),
            layer_norm_eps=float(config.get("layer_norm_eps", 1e-5)),
            parallel_residual=bool(config.get("use_parallel_residual", True)),
            activation=activation,
            max_positions=int(config.get("max_position_embeddings", 2048)),
        )

    def to_config(self) -> dict[str, Any]:
        """The Hugging Face `config.json` of this architecture, as transformers reads it."""
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab_rows,
            "max_position_embeddings": self.max_positions,
            "rotary_pct": self.rotary_dims / self.head_dim,
            "rotary_emb_base": self.rotary_base,
            "layer_norm_eps": self.layer_norm_eps,
            "hidden_act": "gelu" if self.activation == "gelu" else "gelu_new",
            "use_parallel_residual": self.parallel_residual,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "float16",
        }
