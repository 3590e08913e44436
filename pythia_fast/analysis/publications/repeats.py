"""Files whose numbers are those of another: harmless ones, and some that cannot be right."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pythia_fast.analysis.publications.reading import Source

_ALIKE = 0.5
"""More equal numbers than this, of a model and its deduplicated twin, are no accident after step
1,000: in the published tree such pairs share 0.02 to 0.16 of their numbers, except the 2.8b's up to
step 43,000, which share 0.61 and more."""
_ALIKE_EARLY = 0.95
"""The same for the steps before, in which a model has hardly left its initialisation: up to 0.81
there (step 2)."""
_EARLY = 1_000
_SAME_WEIGHTS = frozenset({0, 1})
"""The learning rate of the first step is 0."""
_FEW = 20  # numbers, of which an accident may make half alike

_IN_A_MODELS_FOLDER = re.compile(r"(^|/)pythia-v[01]/pythia-[^/]*/", re.ASCII)

Numbers = Mapping[tuple[str, str, str], float]


def marked(sources: Sequence[Source]) -> list[Source]:
    """The sources, what repeats another marked "duplicate" or "doubtful", or remarked on."""
    found = list(sources)
    _mark_repeated(found)
    _mark_twins(found, [_numbers(source) for source in found])
    return found


def _numbers(source: Source) -> Numbers:
    if source.status in ("unreadable", "other", "foreign"):
        return {}
    return {
        (each.task or "", each.metric or "", each.prompt or ""): each.value
        for each in source.measures
        if each.value is not None and each.duplicate_of is None
    }


def _mark_repeated(found: list[Source]) -> None:
    """Of a number that several files give for a checkpoint only one counts.

    That is the first in the folders of the models themselves, else the first.
    """
    firsts: dict[tuple[object, ...], tuple[str, float | None]] = {}
    trusted = [index for index, source in enumerate(found) if source.status == "ok"]
    trusted.sort(key=lambda index: not _IN_A_MODELS_FOLDER.search(found[index].file))
    for index in trusted:
        source, about = found[index], found[index].subject
        whose = (about.model, about.variant, about.step)
        measures = []
        for each in source.measures:
            shots = about.num_fewshot if each.num_fewshot is None else each.num_fewshot
            key = (*whose, shots, each.task, each.metric, each.prompt)
            file, value = firsts.setdefault(key, (source.file, each.value))
            if file != source.file and each.problem is None:
                same = "the same" if value == each.value else "another"
                words = f"{same} number is in {file}, which is of this checkpoint too"
                each = replace(each, problem=words, duplicate_of=file)
            measures.append(each)
        found[index] = replace(source, measures=measures)


def _mark_twins(found: list[Source], numbers: Sequence[Numbers]) -> None:
    """Different checkpoints whose numbers agree as only the same weights' do."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, source in enumerate(found):
        about = source.subject
        if len(numbers[index]) < _FEW or about.step is None:
            continue
        size = (about.model or "").replace("-deduped", "")
        moment = "start" if about.step in _SAME_WEIGHTS else about.step
        key = (size, about.variant, moment, about.num_fewshot, source.file.endswith(".csv"))
        groups.setdefault(key, []).append(index)
    for group in groups.values():
        for place, index in enumerate(group):
            for other in group[:place]:
                if _whose(found[index]) != _whose(found[other]):
                    _compare(found, numbers, other, index)


def _compare(found: list[Source], numbers: Sequence[Numbers], first: int, second: int) -> None:
    left, right = numbers[first], numbers[second]
    common = left.keys() & right.keys()
    if len(common) < _FEW:
        return
    step = found[second].subject.step or 0
    share = sum(left[key] == right[key] for key in common) / len(common)
    if step in _SAME_WEIGHTS:
        if share > _ALIKE_EARLY and found[second].duplicate_of is None:
            words = f"the same as {found[first].file}: no step has changed the weights yet"
            found[second] = found[second].marked(
                found[second].status, words, duplicate_of=found[first].file
            )
    elif share > (_ALIKE if step >= _EARLY else _ALIKE_EARLY):
        for here, there in ((first, second), (second, first)):
            other = found[there]
            found[here] = found[here].marked(
                "doubtful",
                f"{share:.0%} of its numbers are those of {other.file}, of {other.subject.model}: "
                "the same weights were evaluated under two names",
                duplicate_of=other.file,
            )


def _whose(source: Source) -> tuple[object, ...]:
    return source.subject.model, source.subject.step
