"""Many tests in one table: what is left of their p-values."""

import math
from collections.abc import Sequence

from pythia_fast.extras import require


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p corrected for how many there are, so that all hold at once (Holm, 1979).

    It holds however the tests depend on each other. What was not tested, None or not a number,
    stays None and does not count.
    """
    places = [i for i, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    corrected: list[float | None] = [None] * len(p_values)
    if places:
        correct = require("statsmodels.stats.multitest").multipletests
        found = correct([p_values[i] for i in places], method="holm")[1]
        for place, p in zip(places, found.tolist(), strict=True):
            corrected[place] = p
    return corrected
