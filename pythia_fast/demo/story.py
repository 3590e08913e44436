"""The demo from beginning to end: make it or find it, sweep it, say what came out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pythia_fast.demo.corpus import Canary, read_canaries
from pythia_fast.demo.folder import Made, find, make
from pythia_fast.demo.picture import draw_picture
from pythia_fast.demo.recipe import Recipe
from pythia_fast.errors import ArgumentError
from pythia_fast.runs import sweep

FALLEN = 0.75
"""The loss has fallen if it ends below this part of where it began."""

THREADS = 1
"""A model this small is done with its products before a second thread has woken up; where others
use the machine too, the threads would wait for each other and take ten times as long."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StepRow:
    """One checkpoint: loss and perplexity, and by times planted the share of canaries memorized."""

    step: int
    loss: float
    perplexity: float
    memorized: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Promise:
    """What must come out of a demo, in words, and whether it did."""

    text: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Story:
    """What a demo showed. `found`: it was there already. `picture` is None without matplotlib."""

    made: Made
    found: bool
    rows: tuple[StepRow, ...]
    promises: tuple[Promise, ...]
    picture: Path | None

    @property
    def kept(self) -> bool:
        """Whether all came out as it must."""
        return all(promise.kept for promise in self.promises)

    @property
    def stopped_early(self) -> bool:
        """Whether training ran out of time."""
        return self.made.steps < self.made.recipe.steps

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON knows."""
        folder = self.made.folder
        return {
            "folder": str(folder.path),
            "found": self.found,
            "trained_steps": self.made.steps,
            "stopped_early": self.stopped_early,
            "training_s": round(self.made.training_s, 3),
            "steps": [
                {
                    "step": row.step,
                    "loss": row.loss,
                    "perplexity": row.perplexity,
                    "memorized": {str(times): share for times, share in row.memorized.items()},
                }
                for row in self.rows
            ],
            "promises": [{"promise": each.text, "kept": each.kept} for each in self.promises],
            "suite": str(folder.suite),
            "training_data": str(folder.training_data),
            "canaries": str(folder.canaries),
            "tokenizer": str(folder.tokenizer),
            "picture": None if self.picture is None else str(self.picture),
        }


def run_demo(
    path: str | Path = "demo",
    *,
    fresh: bool = False,
    limit_s: float = 60.0,
    recipe: Recipe | None = None,
    progress: bool = True,
    say: Say = print,
) -> Story:
    """Watch a model learn: train a small GPT-NeoX, save its checkpoints, sweep them.

    A demo that is in `path` is not trained again, and what was swept of it is not computed again,
    unless `fresh`. `limit_s` bounds the training. `say` gets lines of text as things happen.

    Raises ArgumentError if `path` holds something that is no demo, and what `sweep` raises.
    """
    if limit_s <= 0:
        raise ArgumentError(f"the time limit is a positive number of seconds, not {limit_s}")
    with _threads(THREADS):
        return _run(Path(path), fresh, limit_s, recipe or Recipe(), progress, say)


def _run(
    path: Path, fresh: bool, limit_s: float, recipe: Recipe, progress: bool, say: Say
) -> Story:
    made = None if fresh and (path / "demo.json").exists() else find(path)
    found = made is not None
    if made is None:
        say(
            f"Training a GPT-NeoX of {recipe.architecture.parameters:,} parameters for "
            f"{recipe.steps} steps on Python's help texts, with random texts planted in them."
        )
        made = make(path, recipe, limit_s=limit_s, progress=progress)
        say(f"Trained {made.steps} steps in {made.training_s:.0f} s.")
    else:
        say(f"{path} is there, trained for {made.steps} steps. (--fresh starts anew.)")
    say("Sweeping the checkpoints: perplexity and memorization.")
    rows = _sweep(made, progress=progress)
    picture = draw_picture(made.folder.picture, rows)
    return Story(made, found, rows, _promises(rows), picture)


def _sweep(made: Made, *, progress: bool) -> tuple[StepRow, ...]:
    """Perplexity of training text and memorization of the canaries, at every checkpoint."""
    folder = made.folder
    metrics = ("perplexity", "memorization")
    text = sweep(
        folder.suite,
        tokens=folder.training_data,
        sequences=made.recipe.swept_rows,
        metrics=metrics,
        out=folder.runs / "text",
        progress=progress,
    )
    canaries = sweep(
        folder.suite,
        tokens=folder.canary_data,
        metrics=metrics,
        out=folder.runs / "canaries",
        progress=progress,
    )
    planted = read_canaries(folder.canaries)
    learned = text.table.filter(pc.equal(text.table["metric"], "perplexity"))
    return tuple(
        StepRow(
            row["step"],
            row["loss"],
            row["perplexity"],
            _shares(canaries.sequences, row["step"], planted),
        )
        for row in learned.select(["step", "loss", "perplexity"]).to_pylist()
    )


def _shares(sequences: pa.Table, step: int, canaries: Sequence[Canary]) -> dict[int, float]:
    """Which share of the canaries is memorized at a step, by how many times they were planted."""
    of_step = sequences.filter(pc.equal(sequences["step"], step)).sort_by("sequence")
    memorized = of_step["memorized"].to_numpy()
    times = np.array([canary.planted for canary in canaries])
    return {int(count): float(memorized[times == count].mean()) for count in np.unique(times)}


def _promises(rows: Sequence[StepRow]) -> tuple[Promise, ...]:
    """What must come out, whatever the seed."""
    first, last = rows[0], rows[-1]
    most, never = max(last.memorized), 0
    promises = [
        Promise(
            f"the loss falls: from {first.loss:.2f} to {last.loss:.2f} nats per byte",
            last.loss < FALLEN * first.loss,
        ),
        Promise(
            f"texts planted {most} times end memorized: {last.memorized[most]:.0%} of them",
            last.memorized[most] == 1,
        ),
    ]
    if never in last.memorized:
        highest = max(row.memorized[never] for row in rows)
        promises.append(
            Promise(f"texts never planted never are: {highest:.0%} of them", highest == 0)
        )
    return tuple(promises)


@contextmanager
def _threads(most: int) -> Iterator[None]:
    """At most so many threads for torch, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, most))
    try:
        yield
    finally:
        torch.set_num_threads(before)
