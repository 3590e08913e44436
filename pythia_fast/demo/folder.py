"""The demo's folder: made under another name and moved into place, so that it is never half there.

demo.json           how it was made; its presence says that the folder is a demo
canaries.json       what was planted, and where
data/train          .bin/.idx, the training data in the order in which it was trained on
data/canaries       .bin/.idx, each canary once
suite/stepN/        checkpoints in the Hub's layout, and suite/tokenizer.json
runs/, curve.png    what the sweep found
"""

import json
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pythia_fast.demo.corpus import (
    byte_tokenizer,
    canary_rows,
    make_corpus,
    read_canaries,
    write_canaries,
)
from pythia_fast.demo.recipe import Recipe
from pythia_fast.demo.training import Training, train
from pythia_fast.errors import ArgumentError, FormatError, PythiaFastError
from pythia_fast.publish import write_error
from pythia_fast.series import write_checkpoint
from pythia_fast.tokens import write_tokens

FORMAT = 1


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Where things lie in the folder `path`."""

    path: Path

    @property
    def record(self) -> Path:
        """How the demo was made."""
        return self.path / "demo.json"

    @property
    def canaries(self) -> Path:
        """What was planted, and where."""
        return self.path / "canaries.json"

    @property
    def suite(self) -> Path:
        """The checkpoints."""
        return self.path / "suite"

    @property
    def tokenizer(self) -> Path:
        """Bytes to ids and back."""
        return self.suite / "tokenizer.json"

    @property
    def training_data(self) -> Path:
        """The prefix of the training data."""
        return self.path / "data" / "train"

    @property
    def canary_data(self) -> Path:
        """The prefix of the canaries' tokens."""
        return self.path / "data" / "canaries"

    @property
    def runs(self) -> Path:
        """The folder of the sweeps' results."""
        return self.path / "runs"

    @property
    def picture(self) -> Path:
        """The learning curve."""
        return self.path / "curve.png"


@dataclass(frozen=True, slots=True)
class Made:
    """A demo that is there: where, from which recipe, and how many steps of it were trained."""

    folder: DemoFolder
    recipe: Recipe
    steps: int
    training_s: float


def find(path: Path) -> Made | None:
    """The demo in the folder `path`; None if the folder is empty or not there.

    ArgumentError if it holds something else, FormatError if its demo.json is damaged.
    """
    folder = DemoFolder(path)
    if not folder.record.exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ArgumentError(
                f"{path} is there already and is no demo, so nothing is written into it: give "
                "another folder"
            )
        return None
    try:
        record = json.loads(folder.record.read_text())
        if record["format"] != FORMAT:
            raise ValueError(f"a demo of format {record['format']}, not {FORMAT}")
        recipe = Recipe(
            **record["recipe"] | {"repetitions": tuple(record["recipe"]["repetitions"])}
        )
        made = Made(folder, recipe, int(record["steps"]), float(record["training_s"]))
        read_canaries(folder.canaries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            folder.record, f"damaged or of another version ({error}); start with --fresh"
        ) from error
    return made


def make(path: Path, recipe: Recipe, *, limit_s: float, progress: bool) -> Made:
    """Train a model and write everything that the sweep needs; a demo at `path` is replaced.

    Nothing changes at `path` until all is written. WriteError if the system refuses.
    """
    with _moved_into_place(path) as partial:
        folder = DemoFolder(partial)
        corpus = make_corpus(recipe)
        folder.training_data.parent.mkdir()
        write_tokens(folder.training_data, corpus.rows)
        write_tokens(folder.canary_data, canary_rows(corpus.canaries))
        write_canaries(folder.canaries, corpus, recipe)
        training = train(
            recipe, corpus.rows, _saver(folder, recipe), limit_s=limit_s, progress=progress
        )
        byte_tokenizer().save(str(folder.tokenizer))
        folder.record.write_text(json.dumps(_record(recipe, training), indent=1) + "\n")
    return Made(DemoFolder(path), recipe, training.steps, training.elapsed_s)


def _saver(folder: DemoFolder, recipe: Recipe) -> Callable[[int, dict[str, torch.Tensor]], None]:
    """Saves the steps as safetensors and as PyTorch's own files in turn, so that both are read."""

    def save(step: int, weights: dict[str, torch.Tensor]) -> None:
        write_checkpoint(
            folder.suite / f"step{step}",
            weights,
            recipe.architecture,
            format="torch" if recipe.saved_steps.index(step) % 2 else "safetensors",
        )

    return save


def _record(recipe: Recipe, training: Training) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "steps": training.steps,
        "training_s": round(training.elapsed_s, 3),
        "losses": [round(loss, 4) for loss in training.losses],
        "versions": {
            "python": platform.python_version(),
            "pythia-fast": version("pythia-fast"),
            "torch": version("torch"),
        },
    }


@contextmanager
def _moved_into_place(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place at the end, or disappears."""
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    try:
        partial.mkdir(parents=True)
        yield partial
        if (target / "demo.json").exists():
            target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if isinstance(error, PythiaFastError):
            raise
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
