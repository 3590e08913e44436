"""Memorized sequences and scores, loading included, beside transformers' `generate`.

B sequences, T tokens.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bigram_series import sequences
from gpu_bench import Bench, WrongAnswerError
from gpu_transformers import NEW, PROMPT, best_decoding, dtype_on, sweep_matches
from gpu_weights import series_in_memory

import pythia_fast
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import tiny

MEMORIZED = 4
"""Sequences that each checkpoint knows."""
COLUMNS = {"memorization": "memorized", "memorization-score": "score"}


@dataclass(frozen=True, slots=True)
class Form:
    """A sweep of one size, with the ratios asked for flags and for scores."""

    size: str
    checkpoints: int
    sequences: int
    flags_target: float | None
    scores_target: float | None
    each_s: float = 25.0

    def __str__(self) -> str:
        return f"{self.size}, {self.checkpoints} checkpoints x {self.sequences} x {PROMPT + NEW}"

    @property
    def architecture(self) -> Architecture:
        """The true shape, or a tiny one."""
        return tiny(width=128, heads=2) if self.size == "tiny" else spec(self.size).architecture


FORMS = (
    Form("70m", 4, 4096, 8.0, 3.0),
    Form("410m", 3, 4096, 8.0, 3.0),
    Form("12b", 2, 1024, 3.0, None, each_s=80.0),
)
TINY = (Form("tiny", 1, 4, None, None),)


def run(bench: Bench) -> None:
    """Size by size."""
    for form in TINY if bench.rehearsal else FORMS:
        if not bench.rehearsal and bench.left_s < form.each_s:
            bench.note(str(form), {"left out": "no time was left"})
            continue
        with (
            bench.attempt(str(form)),
            series_in_memory(form.architecture, form.checkpoints, bench.device) as series,
        ):
            _flags_and_scores(bench, form, series)


def _flags_and_scores(bench: Bench, form: Form, series: Path) -> None:
    ids = sequences(
        form.architecture,
        form.checkpoints,
        form.sequences,
        memorized=MEMORIZED if not bench.rehearsal else 2,
        tokens=PROMPT + NEW,
        prompt=PROMPT,
    )
    ids_BT = torch.from_numpy(ids)
    paths = [series / f"step{step}" for step in range(form.checkpoints)]
    way = best_decoding(bench, str(form), paths[0], ids_BT)
    decoded: list[np.ndarray] = []
    found: dict[str, np.ndarray] = {}
    runs = itertools.count()

    def ours(metric: str) -> None:
        result = pythia_fast.sweep(
            series,
            range(form.checkpoints),
            tokens=ids.astype(np.uint16),
            sequences=form.sequences,
            metrics=[metric],
            dtype=dtype_on(bench.device),
            device=bench.device,
            out=series.parent / f"run{next(runs)}",
            progress=False,
        )
        found[metric] = result.sequences[COLUMNS[metric]].to_numpy().reshape(form.checkpoints, -1)

    def theirs() -> None:
        decoded[:] = [
            right.float().mean(1).numpy()
            for right in sweep_matches(paths, ids_BT, way, bench.device)
        ]

    def compare() -> None:
        """What was measured last is the same, and as planted."""
        scores = np.stack(decoded)
        planted = np.count_nonzero(scores == 1, axis=1)
        if not (planted >= (MEMORIZED if not bench.rehearsal else 2)).all():
            raise WrongAnswerError(f"generate finds {planted} of the planted sequences")
        for metric, columns in found.items():
            right = scores == 1 if metric == "memorization" else scores
            if not np.array_equal(columns, right):
                wrong = int(np.count_nonzero(columns != right))
                raise WrongAnswerError(f"{wrong} values of {metric} differ from generate's")

    theirs()
    for metric, target in zip(COLUMNS, (form.flags_target, form.scores_target), strict=True):
        ours(metric)
        compare()
        bench.race(
            f"{metric}, {form}",
            lambda metric=metric: ours(metric),
            {str(way): theirs},
            target={} if target is None else {str(way): target},
            cache="files in memory",
            clock=bench.wall,
            case_s=form.each_s / 3,
            fewest=1,
            warm=False,  # both have run
        )
        compare()
