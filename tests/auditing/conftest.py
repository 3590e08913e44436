"""A series that was really trained, small and quick: every weight where training left it."""

from pathlib import Path

import pytest

from pythia_fast.demo import Recipe
from pythia_fast.demo.corpus import make_corpus
from pythia_fast.demo.training import train
from pythia_fast.series import write_checkpoint


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0, 1, 2, 4, … and every fourth step up to 80; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "trained"
    recipe = Recipe(
        steps=80,
        batch_rows=2,
        tokens=64,
        repetitions=(0, 1),
        canaries_each=1,
        width=32,
        heads=4,
        warm_up_steps=10,
        decay_steps=30,
        save_every=4,
    )

    def save(step: int, weights: dict) -> None:
        write_checkpoint(folder / f"step{step}", weights, recipe.architecture)

    train(recipe, make_corpus(recipe).rows, save, limit_s=1e9, progress=False)
    return folder
