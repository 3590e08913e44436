"""Tiny series of checkpoints with random weights, in the layout in which the Hub has them.

L layers, D width, V vocabulary rows.
"""

from collections.abc import Callable, Sequence
from filecmp import cmpfiles
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pythia_fast.series.write import CheckpointFormat, write_checkpoint
from pythia_fast.suite.architecture import Activation, Architecture


def tiny(
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    vocab_rows: int = 128,
    rotary_dims: int | None = None,
    parallel_residual: bool = True,
    activation: Activation = "gelu",
    max_positions: int = 128,
) -> Architecture:
    """A GPT-NeoX of 116,480 weights; `rotary_dims` None is a quarter of a head, as in Pythia."""
    head_dim = width // heads
    return Architecture(
        layers=layers,
        width=width,
        heads=heads,
        vocab_rows=vocab_rows,
        intermediate=4 * width,
        rotary_dims=head_dim // 8 * 2 if rotary_dims is None else rotary_dims,
        parallel_residual=parallel_residual,
        activation=activation,
        max_positions=max_positions,
    )


def random_state_dict(
    architecture: Architecture, *, step: int = 0, seed: int = 0, dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Weights under their Hugging Face names, the same for the same `seed` and `step`.

    Products have GPT-NeoX's initial scale, sqrt(2 / 5D), the two that write into the residual
    2 / (L sqrt(D)). Biases and LayerNorms get the noise that training would give them, so that
    leaving one out shows.
    """
    generator = torch.Generator("cpu").manual_seed(seed * 1_000_003 + step)
    small = (2 / (5 * architecture.width)) ** 0.5
    output = 2 / (architecture.layers * architecture.width**0.5)
    weights = {}
    for name, shape in architecture.shapes().items():
        scale = output if name.endswith(("dense.weight", "4h_to_h.weight")) else small
        scale = scale if len(shape) == 2 else 0.02
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        noise = drawn * scale
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        weights[name] = (noise + centre).to(dtype)
    return weights


def make_series(
    folder: str | Path,
    architecture: Architecture,
    steps: Sequence[int],
    *,
    formats: Sequence[CheckpointFormat] = ("safetensors", "torch"),
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    shard_bytes: int | None = None,
) -> Path:
    """Write `stepN/` for each step into `folder`, in the `formats` by turns, and return `folder`.

    The weights are those of `random_state_dict`, other ones in every step. `shard_bytes` cuts them
    into shards of at most so many bytes. A step that is there already, as the same call wrote it,
    is kept; ArgumentError for other weights in its place.
    """
    folder = Path(folder)
    for step, format in zip(steps, cycle(formats), strict=False):
        write = partial(
            write_checkpoint,
            state_dict=random_state_dict(architecture, step=step, seed=seed, dtype=dtype),
            architecture=architecture,
            format=format,
            max_shard_bytes=shard_bytes,
        )
        if not _is_there(folder / f"step{step}", write):
            write(folder / f"step{step}")
    return folder


def _is_there(folder: Path, write: Callable[[Path], None]) -> bool:
    """Whether a folder holds just what `write` writes."""
    if not folder.is_dir():
        return False
    with TemporaryDirectory() as scratch:
        write(Path(scratch))
        names = sorted(path.name for path in Path(scratch).iterdir())
        if sorted(path.name for path in folder.iterdir()) != names:
            return False
        return not any(cmpfiles(scratch, folder, names, shallow=False)[1:])
