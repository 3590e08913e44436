"""Whether each checkpoint lies where its neighbours say: distances between consecutive ones.

d(a, b) = |w_b - w_a| / max(|w_a|, |w_b|) over the matrices of a group: the two embeddings, and of
each layer the attention's and the MLP's. Vectors are left out: in half precision they stand still
for many steps and then jump by a rounding.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pythia_fast.auditing.findings import Finding, named, steps_named
from pythia_fast.auditing.reading import Tensor

ASIDE = 2.0
"""A checkpoint is out of place if both its neighbours are so many times farther from it than from
each other."""
JUMP_SCALES = 8.0
JUMP_LEAST = math.log(4.0)
"""A jump is this many robust deviations above its surroundings, and at least fourfold."""
SURROUNDINGS = 4
"""Pairs on either side that a jump is compared with."""
LEAST_DISTANCE = 2.0**-11
"""Half precision rounds by so much: nearer is as good as equal."""
LEAST_PAIRS = 5
"""With fewer, what is usual is not known."""

_GROUP = re.compile(r"gpt_neox\.(?P<layer>layers\.\d+)\.(?P<part>attention|mlp)\..*\.weight")


@dataclass(frozen=True, slots=True)
class Distance:
    """From one checkpoint to a later one, of a group of tensors."""

    group: str
    step: int
    following: int
    distance: float


@dataclass(slots=True)
class Distances:
    """Takes checkpoints in order; keeps the last two, and the distances among three in a row."""

    consecutive: list[Distance] = field(default_factory=list)
    across: list[Distance] = field(default_factory=list)
    """Over the checkpoint between."""
    _recent: list[tuple[int, Mapping[str, Tensor]]] = field(default_factory=list)

    def add(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """The next checkpoint."""
        for place, (earlier, others) in enumerate(reversed(self._recent)):
            found = self.consecutive if place == 0 else self.across
            found += [
                Distance(group, earlier, step, distance)
                for group, distance in _distances(others, tensors).items()
            ]
        self._recent = [*self._recent[-1:], (step, tensors)]


def continuity_findings(distances: Distances) -> Iterator[Finding]:
    """Checkpoints out of place, and jumps. A rule for each, applied to each group of tensors.

    Out of place: step t between p and n is not on the way from p to n if both d(p, t) and d(t, n)
    are above ASIDE d(p, n). On a straight way d(p, n) is their sum, on a random walk of equal
    strides 1.4 times one of them, and equal to them if a checkpoint is its mean with noise: no
    training that goes on comes near. It finds any single checkpoint that is from elsewhere, but not
    the first and the last, and not two that changed places with few between them: of all swaps in
    two trained series of 29 steps, 98% of those six or more places apart were found, a third of
    those one to four.

    Jump: ln d of a pair, less half of ln of the steps between them (as on a random walk), is above
    the median of the pairs around it, SURROUNDINGS on either side, by JUMP_SCALES times the robust
    deviation (1.4826 times the median of such differences' size) and by JUMP_LEAST. Pairs with a
    step that is out of place are left out. It finds a series that goes on from another one.

    Distances of no more than LEAST_DISTANCE are never found. Where p and n are no farther apart, t
    is not judged either: one of them is then a copy of the other, and t may well be the good one.
    """
    aside = _aside(distances)
    for step, groups in sorted(aside.items()):
        yield Finding(
            severity="error",
            kind="out of place",
            steps=(step,),
            tensors=tuple(groups),
            meaning=f"step {step} does not lie between its neighbours, in {named(groups)}: they "
            f"are more than {ASIDE:g} times nearer to each other than to it",
            advice="do not use this step: it is another step's weights, or another run's",
        )
    jumps: dict[tuple[int, int], list[str]] = defaultdict(list)
    for group in dict.fromkeys(each.group for each in distances.consecutive):
        pairs = [
            each
            for each in distances.consecutive
            if each.group == group and not {each.step, each.following} & set(aside)
        ]
        for each in _jumps(pairs):
            jumps[each.step, each.following].append(group)
    for steps, groups in sorted(jumps.items()):
        yield Finding(
            severity="warning",
            kind="jump",
            steps=steps,
            tensors=tuple(groups),
            meaning=f"from {steps_named(steps)} the weights move much farther than around, in "
            f"{named(groups)}",
            advice="do not measure across this gap before you know what happened there",
        )


def _aside(distances: Distances) -> dict[int, list[str]]:
    """The steps out of place, each with the groups of tensors that say so."""
    ahead = {(each.group, each.step): each for each in distances.consecutive}
    found: dict[int, list[str]] = defaultdict(list)
    for across in distances.across:
        if across.distance <= LEAST_DISTANCE:
            continue
        before = ahead[across.group, across.step]
        after = ahead[across.group, before.following]
        least = min(before.distance, after.distance)
        if least > ASIDE * across.distance:  # False with NaN
            found[before.following].append(across.group)
    return found


def _jumps(pairs: Sequence[Distance]) -> Iterator[Distance]:
    """The pairs of one group that are farther apart than those around them."""
    pairs = [each for each in pairs if 0 < each.distance < math.inf]
    if len(pairs) < LEAST_PAIRS:
        return
    logs = np.array(
        [math.log(each.distance) - math.log(each.following - each.step) / 2 for each in pairs]
    )
    excess = np.array([value - np.median(_around(logs, n)) for n, value in enumerate(logs)])
    scale = 1.4826 * float(np.median(np.abs(excess)))
    for each, above in zip(pairs, excess, strict=True):
        if above > max(JUMP_SCALES * scale, JUMP_LEAST) and each.distance > LEAST_DISTANCE:
            yield each


def _around(logs: np.ndarray, place: int) -> np.ndarray:
    return np.concatenate(
        [logs[max(place - SURROUNDINGS, 0) : place], logs[place + 1 : place + 1 + SURROUNDINGS]]
    )


def _distances(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """By group of tensors; NaN where a value is."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for name, tensor in a.items():
        group = _group(name)
        if group is None or name not in b:
            continue
        x, y = tensor.sample.astype(np.float64), b[name].sample.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            sums[group] += [((y - x) ** 2).sum(), (x**2).sum(), (y**2).sum()]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {group: _relative(*three.tolist()) for group, three in sums.items()}


def _relative(difference: float, x: float, y: float) -> float:
    largest = max(x, y)
    return 0.0 if difference == 0 else math.sqrt(difference / largest) if largest else math.nan


def _group(name: str) -> str | None:
    """What a tensor is measured with; None for a vector."""
    if name in ("gpt_neox.embed_in.weight", "embed_out.weight"):
        return name.removeprefix("gpt_neox.").removesuffix(".weight")
    match = _GROUP.fullmatch(name)
    if match is None:
        return None
    return f"{match['layer']}.{match['part']}"
