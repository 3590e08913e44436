"""The demo's training: AdamW on the arena, through the same forward pass that a sweep uses.

B rows in a batch, T tokens, V vocabulary rows.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from pythia_fast.demo.corpus import Tokens
from pythia_fast.demo.recipe import Recipe
from pythia_fast.model import Weights, neox
from pythia_fast.progress import Bar
from pythia_fast.suite import Architecture
from pythia_fast.tokens.steps import rows_of_step

Save = Callable[[int, dict[str, torch.Tensor]], None]


@dataclass(frozen=True, slots=True)
class Training:
    """How the training went: `steps` done, the loss of each (nats per byte), and the time."""

    steps: int
    losses: tuple[float, ...]
    elapsed_s: float


def train(recipe: Recipe, rows: Tokens, save: Save, *, limit_s: float, progress: bool) -> Training:
    """Train on the rows in their order; `save` gets the float16 weights of each saved step.

    What is saved depends on the clock in one way only: training ends early, at a saved step, if
    the next one would not be reached within `limit_s`.
    """
    started = time.monotonic()
    architecture = recipe.architecture
    weights = Weights(architecture)
    weights.load_state_dict(initial_weights(architecture, recipe.seed))
    leaf, _ = weights.trainable()
    optimizer = torch.optim.AdamW([leaf], betas=(0.9, 0.95), weight_decay=0.0)
    shape = neox.Shape.of(architecture)
    ids_NT = torch.from_numpy(rows.astype("int64"))
    losses: list[float] = []
    with Bar("train", "steps", recipe.steps, on=progress) as bar:
        save(0, _half(weights))
        for saved, following in pairwise(recipe.saved_steps):
            for step in range(saved + 1, following + 1):
                optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
                rows_of_it = rows_of_step(step, recipe.batch_rows)
                ids_BT = ids_NT[rows_of_it.start : rows_of_it.stop]
                logits_BTV = neox.logits(ids_BT[:, :-1], weights.trainable()[1], shape)
                loss = cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                clip_grad_norm_([leaf], recipe.clip_norm)
                optimizer.step()
                losses.append(loss.item())
                bar.remark(f"loss {sum(losses[-20:]) / len(losses[-20:]):.2f}")
                bar.advance()
            save(following, _half(weights))
            if _too_slow(recipe, following, time.monotonic() - started, limit_s):
                break
    return Training(len(losses), tuple(losses), time.monotonic() - started)


def initial_weights(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    """GPT-NeoX's way to begin: deviations sqrt(2 / 5D), for outputs 2 / (L sqrt(D))."""
    generator = torch.Generator("cpu").manual_seed(seed)
    small = math.sqrt(2 / (5 * architecture.width))
    wang = 2 / (architecture.layers * math.sqrt(architecture.width))
    weights = {}
    for name, shape in architecture.shapes().items():
        if len(shape) == 2:
            output = name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight"))
            weights[name] = torch.randn(
                shape, generator=generator, dtype=torch.float32, device="cpu"
            ) * (wang if output else small)
        else:
            is_scale = name.endswith(("layernorm.weight", "layer_norm.weight"))
            weights[name] = torch.full(shape, float(is_scale), dtype=torch.float32, device="cpu")
    return weights


def _half(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in weights.state_dict().items()}


def _too_slow(recipe: Recipe, step: int, elapsed_s: float, limit_s: float) -> bool:
    """Whether the saved step after `step` would come too late, at the speed so far."""
    following = next((saved for saved in recipe.saved_steps if saved > step), step)
    return elapsed_s * following / step > limit_s
