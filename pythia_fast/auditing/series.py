"""An audit of a series of checkpoints: by its files' hashes, and deeper by its weights."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pythia_fast.auditing.contents import Contents, content_findings, read_contents
from pythia_fast.auditing.files import file_findings
from pythia_fast.auditing.findings import Finding, explained
from pythia_fast.auditing.listing import list_steps
from pythia_fast.auditing.report import AuditReport
from pythia_fast.progress import Bar
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite.anomalies import anomalies
from pythia_fast.suite.steps import Steps, parse_steps


def audit(
    model: str | Path,
    steps: Steps = "all",
    *,
    deep: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    progress: bool = True,
) -> AuditReport:
    """Look for checkpoints that are not what their name says.

    Without `deep` only the files' names, sizes and sha256 are looked at, which the Hub lists (two
    requests a step at most) and which are computed of a local folder, where config.json and the
    files' headers are read as well: steps that are missing or cannot be opened, that have the
    weights of another step or some of its files, or those of `main`, shards that are there twice,
    files that are too small, or cut otherwise than in other steps.

    `deep` reads every weight of every step, each file once and with little memory, downloading
    what is not here within `disk_budget` ("500GB"): shapes and dtypes, NaN and infinite values,
    tensors that two steps share, and whether each checkpoint lies between its neighbours; for the
    rules of that, and what they cannot find, see `pythia_fast.auditing.continuity`.

    What was known of a finding before is said with it. UnknownModelError, UnknownStepError,
    ArgumentError; HubError if the Hub does not answer, WriteError if the disk is full.
    """
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    return audit_series(
        series, parse_steps(steps, series.steps, series=series.name), deep=deep, progress=progress
    )


def audit_series(
    series: CheckpointSeries, steps: Sequence[int], *, deep: bool = False, progress: bool = True
) -> AuditReport:
    """The same of a series that is open, and of steps that it has, ascending."""
    threads = len(os.sched_getaffinity(0))
    with Bar("audit files", "steps", len(steps), on=progress) as bar:
        listed = list_steps(series, steps, threads=threads, seen=bar.advance)
    found = list(file_findings(listed, series.spec.architecture, series.steps[-1]))
    contents = Contents()
    if deep:
        same = [each.steps for each in found if each.kind == "same weights"]
        readable = [each.step for each in listed if each.step is not None and each.error is None]
        with Bar("audit weights", "steps", len(readable), on=progress) as bar:
            contents = read_contents(series, readable, threads=threads, bar=bar)
        found = [*_not_said_twice(found, contents), *content_findings(contents, same)]
    known = [each for each in anomalies(series.spec) if set(each.steps) & set(steps)]
    return AuditReport(
        model=series.name,
        source=series.source,
        steps=tuple(steps),
        deep=deep,
        findings=tuple(explained(found, known, steps)),
        measured=tuple(contents.distances.consecutive),
    )


def _not_said_twice(found: Sequence[Finding], contents: Contents) -> Iterator[Finding]:
    """Those by the files' sizes left out that reading has explained: the file cannot be opened."""
    broken = contents.unreadable
    for each in found:
        if each.kind not in ("too small", "other size") or not broken.issuperset(each.steps):
            yield each
