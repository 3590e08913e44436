"""Memorized sequences and scores, loading included, beside transformers' `generate`.

B sequences, T tokens.
"""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bigram_series import sequences

import pythia_fast
from on_gpu.bench import Bench, WrongAnswerError
from on_gpu.forms import Form, for_each
from on_gpu.transformers_loop import NEW, PROMPT, best_decoding, dtype_on, sweep_matches

MEMORIZED = 4
"""Sequences that each checkpoint knows."""
COLUMNS = {"memorization": "memorized", "memorization-score": "score"}
BOTH = {"memorization": 8.0, "memorization-score": 3.0}
FORMS = (
    Form("70m", 4, 4096, PROMPT + NEW, BOTH, each_s=25.0),
    Form("410m", 3, 4096, PROMPT + NEW, BOTH, each_s=25.0),
    Form("12b", 2, 1024, PROMPT + NEW, {"memorization": 3.0}, each_s=80.0),
)
TINY = (Form("tiny", 1, 4, PROMPT + NEW),)


def run(bench: Bench) -> None:
    """Size by size."""
    for_each(bench, TINY if bench.rehearsal else FORMS, partial(_flags_and_scores, bench))


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
    for metric in COLUMNS:
        ours(metric)
        compare()
        bench.race(
            f"{metric}, {form}",
            lambda metric=metric: ours(metric),
            {str(way): theirs},
            target={str(way): form.targets[metric]} if metric in form.targets else {},
            cache="files in memory",
            clock=bench.wall,
            case_s=form.each_s / 3,
            fewest=1,
            warm=False,  # both have run
        )
        compare()
