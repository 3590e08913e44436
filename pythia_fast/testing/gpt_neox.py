"""Checkpoints as GPT-NeoX itself saves them, cut for any number of model-parallel ranks.

The inverse of GPT-NeoX's rules for merging, exact: merged, the ranks give back every bit.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.suite.architecture import Architecture
from pythia_fast.testing.series import random_state_dict

GptNeoxLayout = Literal["layers", "ranks"]
"""A file for each layer and rank (pipeline modules), or one for each rank."""

_SPLIT_ROWS = (
    "word_embeddings.weight",
    "final_linear.weight",
    "attention.query_key_value.weight",
    "attention.query_key_value.bias",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_h_to_4h.bias",
)
_SPLIT_COLUMNS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")
_SUMMED = ("attention.dense.bias", "mlp.dense_4h_to_h.bias")
_RENAMED = {"mlp.dense_h_to_4h": "mlp.linear1", "mlp.dense_4h_to_h": "mlp.linear2"}


def write_gpt_neox(
    folder: str | Path,
    state_dict: Mapping[str, torch.Tensor],
    architecture: Architecture,
    *,
    model_parallel: int = 1,
    layout: GptNeoxLayout = "layers",
    new_names: bool = False,
    config: Literal["yml", "json"] | None = "yml",
) -> None:
    """Write `state_dict` (Hugging Face names) into `folder`, to be named `global_stepN`.

    `layout` "layers" is `layer_XX-model_YY-model_states.pt`, "ranks" `mp_rank_YY_model_states.pt`.
    `new_names` calls the MLP's products linear1 and linear2, as later versions do. `config` is
    GPT-NeoX's own in `configs/`, a config.json, or none. ArgumentError if the heads or the
    vocabulary cannot be cut into `model_parallel` parts.
    """
    if layout not in ("layers", "ranks"):
        raise ArgumentError(f'layout is "layers" or "ranks", not {layout!r}')
    for what, size in (("heads", architecture.heads), ("rows", architecture.vocab_rows)):
        if model_parallel < 1 or size % model_parallel:
            raise ArgumentError(f"{size} {what} cannot be cut into {model_parallel} parts")
    folder = Path(folder)
    folder.mkdir(parents=True)
    for rank in range(model_parallel):
        layers = _layers_of_rank(state_dict, architecture, rank, model_parallel, new_names)
        module = None
        if layout == "ranks":
            module = {
                f"sequential.{index}.{key}": tensor
                for index, layer in layers.items()
                for key, tensor in layer.items()
            }
        else:
            for index, layer in layers.items():
                torch.save(layer, folder / f"layer_{index:02}-model_{rank:02}-model_states.pt")
        state = _training_state(architecture, model_parallel) | {"module": module}
        torch.save(state, folder / f"mp_rank_{rank:02}_model_states.pt")
    if config == "yml":
        (folder / "configs").mkdir()
        (folder / "configs" / "model.yml").write_text(gpt_neox_yml(architecture, model_parallel))
    elif config == "json":
        (folder / "config.json").write_text(json.dumps(architecture.to_config()))


def make_gpt_neox_series(
    folder: str | Path,
    architecture: Architecture,
    steps: Sequence[int],
    *,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    model_parallel: int = 1,
    layout: GptNeoxLayout = "layers",
    new_names: bool = False,
    config: Literal["yml", "json"] | None = "yml",
) -> Path:
    """Write `global_stepN/` for each step into `folder`, with the weights of `make_series`."""
    folder = Path(folder)
    for step in steps:
        write_gpt_neox(
            folder / f"global_step{step}",
            random_state_dict(architecture, step=step, seed=seed, dtype=dtype),
            architecture,
            model_parallel=model_parallel,
            layout=layout,
            new_names=new_names,
            config=config,
        )
    return folder


def gpt_neox_yml(architecture: Architecture, model_parallel: int = 1) -> str:
    """The part of a GPT-NeoX configuration that says what the model is.

    Keys with dashes and with underscores, as people write them. The rows of the vocabulary are not
    in it: GPT-NeoX pads those of its tokenizer.
    """
    return f"""# a model for tests
{{
  "pipe-parallel-size": 1,
  "model-parallel-size": {model_parallel},
  "num-layers": {architecture.layers},
  "hidden_size": {architecture.width},
  "num-attention-heads": {architecture.heads},
  "intermediate_size": {architecture.intermediate},
  "max-position-embeddings": {architecture.max_positions},
  "seq-length": {architecture.max_positions},
  "norm": "layernorm",
  "layernorm_epsilon": {architecture.layer_norm_eps:.17f},
  "pos-emb": "rotary",
  "rotary-pct": {architecture.rotary_dims / architecture.head_dim},
  "rotary_emb_base": {architecture.rotary_base},
  "no-weight-tying": true,
  "gpt_j_residual": {"true" if architecture.parallel_residual else "false"},
  "activation": "{"gelu" if architecture.activation == "gelu" else "gelu_new"}",
  "fp16": {{"enabled": true, "loss_scale": 0}},
  "attention-config": [[["global"], {architecture.layers}]],
}}
"""


def _layers_of_rank(
    state_dict: Mapping[str, torch.Tensor],
    architecture: Architecture,
    rank: int,
    ranks: int,
    new_names: bool,
) -> dict[int, dict[str, torch.Tensor]]:
    """Layer number -> GPT-NeoX's name -> this rank's part of the tensor."""
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state_dict.items():
        index, key = _place(name, architecture.layers)
        part = _part(key, tensor, rank, ranks)
        for old, new in _RENAMED.items() if new_names else ():
            key = key.replace(old, new)
        layers.setdefault(index, {})[key] = part
    for index in range(2, architecture.layers + 2):
        dims = max(architecture.rotary_dims, 2)
        exponents = torch.arange(0, dims, 2, dtype=torch.float32, device="cpu") / dims
        layers[index]["attention.rotary_emb.inv_freq"] = architecture.rotary_base**-exponents
    return layers


def _place(name: str, layers: int) -> tuple[int, str]:
    """Layers 1 and L + 2 of GPT-NeoX are functions without weights."""
    bare = name.removeprefix("gpt_neox.")
    if bare.startswith("layers."):
        _, number, key = bare.split(".", 2)
        return int(number) + 2, key
    return {
        "embed_in.weight": (0, "word_embeddings.weight"),
        "final_layer_norm.weight": (layers + 3, "norm.weight"),
        "final_layer_norm.bias": (layers + 3, "norm.bias"),
        "embed_out.weight": (layers + 4, "final_linear.weight"),
    }[bare]


def _part(key: str, tensor: torch.Tensor, rank: int, ranks: int) -> torch.Tensor:
    """The rank's own part. One that is summed takes each element from one rank, -0.0 from others.

    (-0.0 is what leaves every number as it is when added, -0.0 too.)
    """
    if key in _SPLIT_ROWS:
        return tensor.chunk(ranks, dim=0)[rank].clone()
    if key in _SPLIT_COLUMNS:
        return tensor.chunk(ranks, dim=1)[rank].clone()
    if key in _SUMMED:
        part = torch.full_like(tensor, -0.0)
        part[rank::ranks] = tensor[rank::ranks]
        return part
    return tensor.clone()


def _training_state(architecture: Architecture, ranks: int) -> dict[str, Any]:
    """What DeepSpeed and GPT-NeoX save beside the weights, of every kind that occurs there."""
    shapes = {name: torch.Size(shape) for name, shape in architecture.shapes().items()}
    return {
        "buffer_names": ["sequential.2.attention.rotary_emb.inv_freq"],
        "optimizer": None,
        "param_shapes": [shapes],
        "lr_scheduler": {"start_lr": 0.001, "num_iters": 7, "decay_style": "cosine"},
        "sparse_tensor_module_names": set(),
        "global_steps": 7,
        "mp_world_size": ranks,
        "ds_config": {"fp16": {"enabled": True, "loss_scale": 0}, "betas": [0.9, 0.95]},
        "ds_version": "0.3.15",
        "iteration": 7,
        "args": {"num_layers": architecture.layers, "model_parallel_size": ranks},
        "random_rng_state": random.Random(0).getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.Generator("cpu").get_state(),
        "rng_tracker_states": {"model-parallel-rng": torch.Generator("cpu").get_state()},
    }
