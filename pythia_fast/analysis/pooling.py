"""Effects on several cohorts, taken together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pooled(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, float]:
    """The mean effect over cohorts, weighted by sequences, and a standard error on the safe side.

    Cohorts share the unseen sequences that they are compared with, so that errors of theirs are
    taken to go together.
    """
    known = [row for row in rows if row.get("stderr") is not None]
    if not known:
        return None, float("nan")
    weights = np.array([row["sequences"] for row in known], dtype=float)
    weights /= weights.sum()
    effects = np.array([row["effect"] for row in known])
    errors = np.array([row["stderr"] for row in known])
    return float(weights @ effects), float(weights @ errors)
