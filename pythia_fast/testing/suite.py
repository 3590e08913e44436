"""A small series of checkpoints in any layout, with weights that move as in training.

Every weight goes from its start towards its end, fast at first, with a little noise of each step:
w(s) = w_0 + (ln(1 + s) / ln(1 + S)) d + noise / 100, S = 143,000.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Literal

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.series.write import CheckpointFormat, write_checkpoint
from pythia_fast.suite.architecture import Architecture
from pythia_fast.suite.steps import STEPS
from pythia_fast.testing.gpt_neox import write_gpt_neox
from pythia_fast.testing.series import random_state_dict, tiny
from pythia_fast.testing.tokenizer import END_OF_TEXT, byte_tokenizer

Layout = Literal["mixed", "safetensors", "torch", "gpt-neox layers", "gpt-neox ranks"]
"""`stepN/` as on the Hub ("mixed": both formats by turns), or GPT-NeoX's own `global_stepN/`."""

TINY_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)

_FORMATS: Mapping[str, tuple[CheckpointFormat, ...]] = {
    "mixed": ("safetensors", "torch"),
    "safetensors": ("safetensors",),
    "torch": ("torch",),
}
_LAYOUTS = (*_FORMATS, "gpt-neox layers", "gpt-neox ranks")
_NOISE = 0.01


def tiny_suite(
    path: str | Path,
    *,
    steps: Sequence[int] = TINY_STEPS,
    layout: Layout = "mixed",
    architecture: Architecture | None = None,
    shard_bytes: int | None = None,
    model_parallel: int = 1,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    copies: Mapping[int, int] | None = None,
) -> Path:
    """Write a series into the folder `path`, which is created, and return it.

    The same arguments give the same weights, whatever the layout. `shard_bytes` cuts the Hub's
    layouts into shards, `model_parallel` GPT-NeoX's into ranks. `copies` {step: another of `steps`}
    gives a step the very files of another, such as {1: 0} for what Pythia has. If the vocabulary
    has room for it (257 rows; the default architecture has 260) a byte tokenizer goes with it, in
    the folder and in every `stepN/`.

    `HubServer({"me/tiny": branches(path)})` serves it as a repository.
    """
    path = Path(path)
    architecture = architecture or tiny(vocab_rows=260)
    copies = copies or {}
    neox = layout.startswith("gpt-neox ")
    if layout not in _LAYOUTS:
        raise ArgumentError(f"layout is {', '.join(_LAYOUTS)}, not {layout!r}")
    if (shard_bytes is not None and neox) or (model_parallel != 1 and not neox):
        raise ArgumentError("shard_bytes is for the Hub's layouts, model_parallel for GPT-NeoX's")
    if not set(copies.values()) <= set(steps) - set(copies) or not set(copies) <= set(steps):
        raise ArgumentError(f"copies are of other steps of the series, not {dict(copies)}")
    path.mkdir(parents=True, exist_ok=True)
    folders = {step: path / f"{'global_' if neox else ''}step{step}" for step in steps}
    formats = cycle(_FORMATS.get(layout, ("safetensors",)))
    for step, format in zip(steps, formats, strict=False):
        if step in copies:
            continue
        weights = training_state_dict(architecture, step=step, seed=seed, dtype=dtype)
        if neox:
            write_gpt_neox(
                folders[step],
                weights,
                architecture,
                model_parallel=model_parallel,
                layout="layers" if layout == "gpt-neox layers" else "ranks",
            )
        else:
            write_checkpoint(
                folders[step], weights, architecture, format=format, max_shard_bytes=shard_bytes
            )
    for step, other in copies.items():
        shutil.copytree(folders[other], folders[step])
    if architecture.vocab_rows > END_OF_TEXT:
        for folder in (path,) if neox else (path, *folders.values()):
            _write_tokenizer(folder)
    return path


def training_state_dict(
    architecture: Architecture, *, step: int = 0, seed: int = 0, dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Weights under their Hugging Face names that are near those of the steps around `step`."""
    progress = math.log1p(step) / math.log1p(STEPS[-1])
    start, end, noise = (
        random_state_dict(architecture, step=each, seed=seed, dtype=torch.float32)
        for each in (0, STEPS[-1] + 1, step + 1)
    )
    weights = {}
    for name, begun in start.items():
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        moved = progress * (end[name] - centre) + _NOISE * (noise[name] - centre)
        weights[name] = (begun + moved).to(dtype)
    return weights


def _write_tokenizer(folder: Path) -> None:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
