"""Sweeps into run folders of their own, for the themes that repeat one."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

import pythia_fast


class Sweeper:
    """(series, steps, ids, dtype, metrics) -> a finished sweep, in a new run folder each time."""

    def __init__(self, root: Path) -> None:
        self._root, self._runs = root, itertools.count()

    def __call__(
        self,
        series: Path,
        steps: range,
        ids_BT: npt.NDArray[np.int64],
        dtype: str,
        *metrics: str,
    ) -> pythia_fast.SweepResult:
        """Without a progress bar."""
        return pythia_fast.sweep(
            series,
            steps,
            tokens=ids_BT,
            metrics=metrics,
            dtype=dtype,
            out=self._root / f"run{next(self._runs)}",
            progress=False,
        )
