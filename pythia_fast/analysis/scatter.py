"""How likely chance is to scatter a few over many blocks as unevenly, by drawing.

The statistic is that of the chi-squared test, the sum of (memorized - expected)² / expected. Its
distribution is chi-squared where a block has many, or many share a block; where hardly any do,
each pair that falls together adds as much as many blocks, and the tail is far too heavy for that.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_fast.extras import require

Ints = npt.NDArray[np.int64]

_FEW_PAIRS = 200  # in the same block: their number has a normal distribution above
_DRAWS = {999: 0.1, 9_999: 0.001, 99_999: 0.0}  # so many are enough where p is above
_MOST = 1_000_000_000  # counts of blocks in all draws: some seconds
_AT_ONCE = 1 << 20  # counts of blocks
_SEED = 20_230_401


def is_sparse(memorized: int, blocks: int) -> bool:
    """Whether a block has less than one of them, and hardly any two are expected in the same."""
    return memorized < blocks and memorized * (memorized - 1) < 2 * _FEW_PAIRS * blocks


def scattered(sequences: Ints, memorized: Ints, *, replace: bool) -> Any:
    """Scipy's Monte Carlo test of the counts `memorized` in blocks of so many `sequences`.

    Drawn are as many sequences as are memorized: of all of them (a binomial test), or with
    `replace` each anew (a Poisson one). What is likely after 999 draws is told from these, the
    rest from 9,999, and what is most unlikely from 99,999, unless the blocks are too many for that
    (10,000): p is then at least 0.0001, else 0.00001, which must be left of many tests by Holm.
    The draws are always the same ones.
    """
    total, of = int(memorized.sum()), int(sequences.sum())
    expected = sequences * (total / of)
    ends = np.cumsum(sequences)
    others = not replace and 2 * total > of  # then those that are not memorized are fewer
    drawn = of - total if others else total
    random = np.random.default_rng(_SEED)

    def rvs(size: tuple[int, ...]) -> Ints:
        counts = np.empty(size, dtype=np.int64)
        for row in counts.reshape(-1, len(sequences)):
            if replace:
                chosen = random.integers(of, size=drawn)
            else:
                chosen = random.choice(of, drawn, replace=False, shuffle=False)
            row[:] = np.bincount(np.searchsorted(ends, chosen, "right"), minlength=len(sequences))
        return sequences - counts if others else counts

    def statistic(counts: Ints, axis: int = -1) -> Any:
        square = np.square(counts, dtype=np.float64)
        return np.einsum("...i,i->...", np.moveaxis(square, axis, -1), 1 / expected) - total

    for draws, enough in _DRAWS.items():
        test = require("scipy.stats").monte_carlo_test(
            memorized,
            rvs,
            statistic,
            vectorized=True,
            n_resamples=draws,
            batch=max(1, _AT_ONCE // len(sequences)),
            alternative="greater",
        )
        if test.pvalue > enough or 10 * draws * len(sequences) > _MOST:
            break
    return test
