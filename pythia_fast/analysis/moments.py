"""Sums from which changes between checkpoints follow, in one pass over the sequences.

S checkpoints, ascending; K = S + 1 groups of sequences, by when they were seen: group 0 by the
first checkpoint, group k between checkpoints k - 1 and k, group S by none of them. P bins of
training positions.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROUNDING = 1e-12  # of the values' squares: what is less is none


@dataclass(slots=True)
class Moments:
    """Counts, sums and products of one measure's values.

    The memory is K·S² numbers and 4·S·P, however many sequences there are. Values are taken
    relative to the first ones' mean, so that differences of large sums stay exact.

    Attributes:
        steps: the checkpoints, [S].
        edges: the training steps at which bins begin, and where the last ends, [P + 1].
        centre: what values are taken relative to; 0 keeps the sums of flags whole numbers.
        left_out: sequences that had a value that is not finite, or none, at some step.
    """

    steps: Ints
    edges: Ints
    centre: float | None = None
    left_out: int = 0
    count_K: Ints = field(init=False)
    sum_KS: Floats = field(init=False)
    product_KSS: Floats = field(init=False)
    count_P: Ints = field(init=False)
    sum_PS: Floats = field(init=False)
    square_PS: Floats = field(init=False)

    def __post_init__(self) -> None:
        S, K, P = len(self.steps), len(self.steps) + 1, len(self.edges) - 1
        self.count_K = np.zeros(K, dtype=np.int64)
        self.sum_KS, self.product_KSS = np.zeros((K, S)), np.zeros((K, S, S))
        self.count_P = np.zeros(P, dtype=np.int64)
        self.sum_PS, self.square_PS = np.zeros((P, S)), np.zeros((P, S))

    def add(self, seen_N: Ints, value_SN: Floats) -> None:
        """Count in N sequences that training met at the steps `seen_N`."""
        finite_N = np.isfinite(value_SN).all(0)
        self.left_out += int((~finite_N).sum())
        seen_N, value_SN = seen_N[finite_N], value_SN[:, finite_N]
        if not len(seen_N):
            return
        if self.centre is None:
            self.centre = float(value_SN.mean())
        value_SN = value_SN - self.centre
        group_N = np.searchsorted(self.steps, seen_N)  # the first checkpoint not before it
        for group in np.unique(group_N):
            own_SN = value_SN[:, group_N == group]
            self.count_K[group] += own_SN.shape[1]
            self.sum_KS[group] += own_SN.sum(1)
            self.product_KSS[group] += own_SN @ own_SN.T
        bin_N = np.searchsorted(self.edges, seen_N, side="right") - 1
        for place in np.unique(bin_N):
            change_SN = value_SN[:, bin_N == place]
            change_SN = change_SN - change_SN[0]
            self.count_P[place] += change_SN.shape[1]
            self.sum_PS[place] += change_SN.sum(1)
            self.square_PS[place] += (change_SN**2).sum(1)

    def level(self, groups: slice, step: int) -> tuple[int, float]:
        """How many sequences some groups have, and their mean at checkpoint number `step`."""
        count = int(self.count_K[groups].sum())
        total = float(self.sum_KS[groups, step].sum())
        return count, (total / count + (self.centre or 0.0) if count else float("nan"))

    def change(self, groups: slice, start: int, end: int) -> tuple[int, float, float]:
        """How many, and mean and deviation of their changes between two checkpoints' numbers."""
        count = int(self.count_K[groups].sum())
        if not count:
            return 0, float("nan"), float("nan")
        total = float((self.sum_KS[groups, end] - self.sum_KS[groups, start]).sum())
        product = self.product_KSS[groups]
        square = product[:, end, end] - 2 * product[:, start, end] + product[:, start, start]
        mean = total / count
        if count < 2:
            return count, mean, float("nan")
        # numpy's and scipy's deviations need all values; these sums are all that is kept of them.
        deviations = float(square.sum()) - count * mean**2
        scale = float((product[:, end, end] + product[:, start, start]).sum())
        if deviations <= _ROUNDING * scale:
            return count, mean, 0.0
        return count, mean, float(np.sqrt(deviations / (count - 1)))

    def turned(self, groups: slice, start: int, end: int) -> tuple[int, int]:
        """Of flags (with centre 0): how many have become true, and how many false."""
        total = float((self.sum_KS[groups, end] - self.sum_KS[groups, start]).sum())
        product = self.product_KSS[groups]
        square = product[:, end, end] - 2 * product[:, start, end] + product[:, start, start]
        changed = float(square.sum())
        return round((changed + total) / 2), round((changed - total) / 2)
