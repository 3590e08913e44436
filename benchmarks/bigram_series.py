"""Checkpoints in a true shape that memorize: sharp next-token choices instead of random ones.

Random weights are no model of a trained checkpoint where arg maxes are compared: the two best of
50,304 random logits lie so close together that most are near ties. Here the unembedding's row of
token p(v) is the embedding of v, with another permutation p in each checkpoint, and embeddings are
strong beside what the blocks add. So after v comes p(v), by a wide margin, as in a trained model
that knows its text. The work is that of any weights of this shape.
D width, V vocabulary rows.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pythia_fast.series import write_checkpoint
from pythia_fast.suite import Architecture
from pythia_fast.testing import random_state_dict

STRENGTH = 12.0
"""Embeddings, in units of GPT-NeoX's initial ones."""

Ids = npt.NDArray[np.int64]


def successors(architecture: Architecture, step: int) -> Ids:
    """The permutation p of a checkpoint, [V]: the token that comes after each."""
    return np.random.default_rng(step).permutation(architecture.vocab_rows)


def make_bigram_series(folder: Path, architecture: Architecture, steps: int) -> Path:
    """Write `steps` checkpoints, float16 safetensors, and return `folder`."""
    for step in range(steps):
        weights = random_state_dict(architecture, step=step, dtype=torch.float32)
        embed_VD = weights["gpt_neox.embed_in.weight"].mul_(STRENGTH)
        unembed_VD = torch.empty_like(embed_VD)
        unembed_VD[successors(architecture, step)] = embed_VD / embed_VD.norm(dim=1, keepdim=True)
        weights["embed_out.weight"] = unembed_VD
        halves = {name: tensor.half() for name, tensor in weights.items()}
        write_checkpoint(folder / f"step{step}", halves, architecture)
    return folder


def sequences(
    architecture: Architecture, steps: int, count: int, *, memorized: int, tokens: int, prompt: int
) -> Ids:
    """[count, tokens] random ids; of each checkpoint, `memorized` go on after `prompt` as it does.

    Those of checkpoint s are the rows from s · memorized on.
    """
    random = np.random.default_rng(2**20)
    ids = random.integers(0, architecture.vocab_rows, (count, tokens))
    for step in range(steps):
        after = successors(architecture, step)
        rows = slice(step * memorized, (step + 1) * memorized)
        for position in range(prompt, tokens):
            ids[rows, position] = after[ids[rows, position - 1]]
    return ids
