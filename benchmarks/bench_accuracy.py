"""How far each data type's losses are from float64, with random weights and with trained ones.

B sequences, T tokens.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from comparison import Comparison, Effort
from forms import offered_dtypes
from random_series import RandomSeries
from transformers_peer import Setting, from_pretrained, token_nll

import pythia_fast
from pythia_fast.demo.corpus import make_corpus
from pythia_fast.demo.recipe import Recipe
from pythia_fast.demo.training import train
from pythia_fast.series import write_checkpoint

# {size: (sequences, tokens)} by effort.
FORMS = {
    "quick": {"70m": (1, 128)},
    "standard": {"70m": (2, 2048), "160m": (1, 2048)},
    "full": {"70m": (8, 2048), "160m": (4, 2048), "410m": (2, 2048)},
}
TRAINING_STEPS = {"quick": 20, "standard": 300, "full": 600}
MEAN_TARGET = {"bfloat16": 1e-4, "split-bf16": 1e-5, "float32": 1e-5}
"""Nats, of the mean loss."""


def compare(comparison: Comparison, case: str, checkpoint: Path, ids_BT: torch.Tensor) -> None:
    """A row for each of our data types, beside transformers in the same one where it has it.

    The yardstick is transformers' own forward pass with every product and sum in float64.
    """
    exact_N = token_nll_in("float64", checkpoint, ids_BT)
    step = int(checkpoint.name.removeprefix("step"))
    for dtype in offered_dtypes():
        model = pythia_fast.load(checkpoint.parent, step, dtype=dtype)
        ours = errors(model.nll(ids_BT).flatten(), exact_N)
        theirs = {}
        if dtype != "split-bf16":
            theirs = errors(token_nll_in(dtype, checkpoint, ids_BT), exact_N)
            for name in ("mean_abs", "largest_abs"):
                assert ours[name] <= 2 * theirs[name] + 1e-6, (dtype, name)
        comparison.note(
            f"{case}, {dtype}",
            {"tokens": len(exact_N), "mean_nll": float(exact_N.mean())}
            | {f"ours_{name}": value for name, value in ours.items()}
            | {f"transformers_{name}": value for name, value in theirs.items()}
            | {"asked_of_mean": MEAN_TARGET[dtype]},
        )


def errors(nll_N: torch.Tensor, exact_N: torch.Tensor) -> dict[str, float]:
    """Of the mean, the mean of the absolute ones, and the largest, in nats."""
    delta_N = nll_N.double() - exact_N
    return {
        "of_mean": abs(float(delta_N.mean())),
        "mean_abs": float(delta_N.abs().mean()),
        "largest_abs": float(delta_N.abs().max()),
    }


def token_nll_in(dtype: str, checkpoint: Path, ids_BT: torch.Tensor) -> torch.Tensor:
    """The losses that transformers gives in a data type, one sequence at a time, [N]."""
    model = from_pretrained(checkpoint, Setting(dtype=dtype))
    return torch.cat([token_nll(model, ids_1T) for ids_1T in ids_BT.split(1)])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each size of the effort's form."""
    if "size" in metafunc.fixturenames:
        metafunc.parametrize("size", FORMS[metafunc.config.getoption("--effort")])


def test_random_weights(
    comparison: Comparison, effort: Effort, random_series: RandomSeries, size: str
) -> None:
    """True shapes: sums as long as they are in the suite."""
    sequences, tokens = FORMS[effort.name][size]
    ids = np.random.default_rng(0).integers(0, 50_254, (sequences, tokens))
    checkpoint = random_series(size, 1) / "step0"
    case = f"{size}, random weights, {sequences} x {tokens} tokens"
    compare(comparison, case, checkpoint, torch.from_numpy(ids))


def test_trained_weights(comparison: Comparison, effort: Effort, tmp_path: Path) -> None:
    """The demo's model, trained here on English text: logits as sharp as training makes them."""
    recipe = Recipe(steps=TRAINING_STEPS[effort.name], repetitions=(0, 1), decay_steps=100)
    rows = make_corpus(recipe).rows
    saved: dict[int, dict[str, torch.Tensor]] = {}
    train(recipe, rows, saved.__setitem__, limit_s=600, progress=False)
    last = max(saved)
    checkpoint = tmp_path / f"step{last}"
    write_checkpoint(checkpoint, saved[last], recipe.architecture)
    case = f"demo's model (width {recipe.width}) after {last} steps of training"
    compare(comparison, case, checkpoint, torch.from_numpy(rows[:64].astype(np.int64)))
