"""Checkpoints in true shapes that memorize, made on the device itself: 12b in seconds.

What they know is what those of `bigram_series` know: after token v comes p(v), by a wide margin,
with another permutation p in each checkpoint. Losses of other texts are those of random weights.
D width, V vocabulary rows.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from bigram_series import STRENGTH, successors

from on_gpu.folders import folder_for
from pythia_fast.series import write_checkpoint
from pythia_fast.suite import Architecture

SHARD_BYTES = 5_000_000_000
"""As the Hub has them cut."""


@contextmanager
def series_in_memory(
    architecture: Architecture, steps: int, device: torch.device
) -> Iterator[Path]:
    """`steps` checkpoints in float16 safetensors, in a folder that is gone afterwards.

    In memory where there is room for them.
    """
    root = folder_for(steps * 2 * architecture.parameters)

    def write(step: int) -> None:
        weights = memorizing(architecture, step, device)
        write_checkpoint(
            root / "series" / f"step{step}", weights, architecture, max_shard_bytes=SHARD_BYTES
        )

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(steps)))
        os.sync()  # nothing of it is to be written while something is timed
        yield root / "series"
    finally:
        shutil.rmtree(root)


def memorizing(
    architecture: Architecture, step: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Weights by name, float16 on the CPU, with GPT-NeoX's initial scales and noise in the rest."""
    generator = torch.Generator(device).manual_seed(step)
    small = (2 / (5 * architecture.width)) ** 0.5
    output = 2 / (architecture.layers * architecture.width**0.5)
    weights = {}
    for name, shape in architecture.shapes().items():
        scale = output if name.endswith(("dense.weight", "4h_to_h.weight")) else small
        scale = scale if len(shape) == 2 else 0.02
        scale *= STRENGTH if name == "gpt_neox.embed_in.weight" else 1.0
        made = torch.randn(shape, generator=generator, device=device).mul_(scale)
        made += 1.0 if name.endswith("norm.weight") else 0.0
        weights[name] = made.half().cpu()
    embed_VD = weights["gpt_neox.embed_in.weight"].to(device).float()
    unembed_VD = torch.empty_like(embed_VD)
    after_V = torch.from_numpy(successors(architecture, step)).to(device)
    unembed_VD[after_V] = embed_VD / embed_VD.norm(dim=1, keepdim=True)
    weights["embed_out.weight"] = unembed_VD.half().cpu()
    return weights
