"""What the files' names, sizes and hashes alone say of a series. No weights are read."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from pythia_fast.auditing.findings import Finding, named, steps_named
from pythia_fast.auditing.listing import Listed
from pythia_fast.errors import MissingCheckpointError
from pythia_fast.series.gpt_neox.files import final_norm_name
from pythia_fast.suite.architecture import Architecture

SIZE_TOLERANCE = 0.01
"""Files of the same weights in the same format differ by less: names, and buffers left out."""
LEAST_BYTES_A_WEIGHT = 2
"""In half precision, the least that a checkpoint of the suite has."""


def file_findings(
    listed: Sequence[Listed], architecture: Architecture, last: int
) -> Iterator[Finding]:
    """All of it, of a series whose last step, with its `main`, is `last`.

    A file is another step's if it has the sha256 of a file there. Where `main` has it too, it is
    the last step's, and the others serve the final model. Steps all of whose weights are the same
    are one finding, "same weights"; those that share some files another, "shared file". GPT-NeoX's
    file of the last LayerNorm alone says nothing: all ranks have the same, and all steps until an
    update outgrows the rounding.
    """
    steps = [each for each in listed if each.step is not None]
    alike = final_norm_name(architecture.layers)
    yield from _missing(steps)
    yield from _shared(listed, last, alike)
    yield from _repeated(steps, alike)
    yield from _unhashed(steps)
    yield from _sizes([each for each in steps if each.error is None], architecture)
    yield from _layouts([each for each in steps if each.error is None])


def _missing(listed: Sequence[Listed]) -> Iterator[Finding]:
    for each in listed:
        if each.error is not None:
            missing = isinstance(each.error, MissingCheckpointError)
            yield Finding(
                severity="error",
                kind="missing" if missing else "unreadable",
                steps=(_step(each),),
                meaning=str(each.error),
                advice="leave the step out, or tell the owners; nothing stands in for it",
            )


def _shared(listed: Sequence[Listed], last: int, alike: re.Pattern[str]) -> Iterator[Finding]:
    holders: dict[str, list[Listed]] = defaultdict(list)
    names: dict[str, set[str]] = defaultdict(set)
    for each in listed:
        for digest in {file.sha256 for file in each.files if file.sha256 is not None}:
            holders[digest].append(each)
            names[digest] |= {file.path for file in each.files if file.sha256 == digest}
    groups: dict[tuple[int | None, ...], set[str]] = defaultdict(set)
    for digest, having in holders.items():
        if not all(alike.fullmatch(name) for name in names[digest]):
            groups[tuple(each.step for each in having)].add(digest)
    by_step = {each.step: each for each in listed}
    everywhere = {digest: {each.step for each in having} for digest, having in holders.items()}
    for together, digests in groups.items():
        final = None in together
        steps = [step for step in together if step is not None and not (final and step == last)]
        if len(steps) < (1 if final else 2):
            continue
        files = tuple(sorted({name for digest in digests for name in names[digest]}))
        whole = all(
            file.sha256 is not None and everywhere[file.sha256] >= set(together)
            for step in steps
            for file in by_step[step].files
        )
        yield _shared_finding(steps, files, final, whole, by_step)


def _shared_finding(
    steps: Sequence[int],
    files: tuple[str, ...],
    final: bool,
    whole: bool,
    by_step: Mapping[int | None, Listed],
) -> Finding:
    what = "all weights" if whole else named(files)
    if final:
        meaning = f"{steps_named(steps)}: {what} of the final model, under the name of an early one"
    else:
        meaning = f"{steps_named(steps)} have {what} in common, byte for byte"
    read = any(set(files) & set(by_step[step].read) for step in steps)
    advice = "use at most one of these steps" if whole and not final else "do not use these steps"
    if not read:
        names = named(sorted({name for step in steps for name in by_step[step].read}))
        advice = f"this package reads {names} instead; programs that read {named(files)} go wrong"
    return Finding(
        severity="error",
        kind="same weights" if whole else "shared file",
        steps=tuple(steps),
        files=files,
        meaning=meaning,
        advice=advice,
    )


def _repeated(listed: Sequence[Listed], alike: re.Pattern[str]) -> Iterator[Finding]:
    """A shard that stands for two of its own step."""
    for each in listed:
        names: dict[str | None, list[str]] = defaultdict(list)
        for file in each.files:
            if not alike.fullmatch(file.path):
                names[file.sha256].append(file.path)
        for digest, same in names.items():
            if digest is not None and len(same) > 1:
                yield Finding(
                    severity="error",
                    kind="repeated file",
                    steps=(_step(each),),
                    files=tuple(same),
                    meaning=f"step {each.step}: {named(same)} are one and the same file",
                    advice="do not use this step: a part of it is missing",
                )


def _unhashed(listed: Sequence[Listed]) -> Iterator[Finding]:
    for each in listed:
        if names := tuple(file.path for file in each.files if file.sha256 is None):
            yield Finding(
                severity="warning",
                kind="no checksum",
                steps=(_step(each),),
                files=names,
                meaning=f"step {each.step}: the source promises no sha256 for {named(names)}",
                advice="what is downloaded cannot be verified",
            )


def _sizes(listed: Sequence[Listed], architecture: Architecture) -> Iterator[Finding]:
    """Of the files that are read: large enough for the weights, and like those of other steps."""
    least_bytes = LEAST_BYTES_A_WEIGHT * architecture.parameters
    kinds: dict[str, list[Listed]] = defaultdict(list)
    for each in listed:
        if each.read_bytes < least_bytes:
            yield Finding(
                severity="error",
                kind="too small",
                steps=(_step(each),),
                files=each.read,
                meaning=f"step {each.step}: {each.read_bytes:,} bytes cannot hold the weights, "
                f"{architecture.parameters:,} of at least {LEAST_BYTES_A_WEIGHT} bytes",
                advice="do not use this step: a part of it is missing",
            )
        else:
            kinds[_suffix(each)].append(each)
    for alike in kinds.values():
        usual_bytes = median(each.read_bytes for each in alike)
        for each in alike:
            if abs(each.read_bytes - usual_bytes) > SIZE_TOLERANCE * usual_bytes:
                yield Finding(
                    severity="warning",
                    kind="other size",
                    steps=(_step(each),),
                    files=each.read,
                    meaning=f"step {each.step}: {each.read_bytes:,} bytes of weights, where the "
                    f"series usually has {usual_bytes:,.0f}",
                    advice="look at its dtypes and shapes: audit with deep=True",
                )


def _layouts(listed: Sequence[Listed]) -> Iterator[Finding]:
    """Steps that are cut into other files than most are."""
    kinds = Counter(each.read for each in listed)
    if len(kinds) < 2:
        return
    usual, _ = kinds.most_common(1)[0]
    for files in kinds:
        if files != usual:
            steps = tuple(_step(each) for each in listed if each.read == files)
            yield Finding(
                severity="expected",
                kind="other layout",
                steps=steps,
                files=files,
                meaning=f"{steps_named(steps)}: the weights are {named(files)}, where most steps "
                f"have {named(usual)}",
                advice="nothing: each step is read as it is",
            )


def _suffix(each: Listed) -> str:
    return each.read[0].rpartition(".")[2] if each.read else ""


def _step(each: Listed) -> int:
    assert each.step is not None
    return each.step
