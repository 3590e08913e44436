"""From a call's arguments to what each of its models is asked: checked, then written down.

What can be known before the dtype is a `Question`: series, steps, metrics and data are opened and
checked. The dtype may depend on who computes; with it, `settled` makes plans and run folders.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pythia_fast.cache import cache_folder, expanded
from pythia_fast.errors import ArgumentError, RunMismatchError, WriteError
from pythia_fast.metrics import Metric, resolve
from pythia_fast.publish import require_writable, writing
from pythia_fast.quantities import parse_bytes
from pythia_fast.runs.asked import Asked, check_batch_tokens
from pythia_fast.runs.folder.run_folder import OTHER_OUT, RunFolder
from pythia_fast.runs.plan import Fetching, Plan, Sequences, fingerprint, sequences_argument
from pythia_fast.series import CheckpointSeries
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource


@dataclass(frozen=True)
class Question:
    """What a sweep of one model is to find out, in whatever dtype."""

    series: CheckpointSeries
    steps: tuple[int, ...]
    metrics: tuple[Metric, ...]
    dataset: TokenDataset
    sequences: Sequences
    deterministic: bool
    batch_tokens: int | Literal["auto"]
    budget_bytes: int | None
    fetching: Fetching | None = None

    def plan(self, dtype: str) -> Plan:
        """The plan in the dtype of this resolved name: "float32", "split-bf16", …, never "auto".

        The errors of `check`.
        """
        return self._checked.in_dtype(dtype)

    def check(self) -> None:
        """Look at all rows, once, however often it is asked for.

        They are fetched, where they are not here, and `fetching` is told of it.

        ArgumentError or TokenRangeError for sequences that the model or a metric does not take.
        """
        _ = self._checked

    @cached_property
    def _checked(self) -> Plan:
        """The plan in some dtype: what is checked does not depend on which."""
        return Plan(
            spec=self.series.spec,
            steps=self.steps,
            metrics=self.metrics,
            dataset=self.dataset,
            sequences=self.sequences,
            dtype="float32",
            deterministic=self.deterministic,
            fetching=self.fetching,
        )


def questions(
    series: Sequence[CheckpointSeries],
    steps: Steps,
    *,
    tokens: TokenDataset | TokenSource | None,
    sequences: int | slice | Literal["seen", "unseen"],
    metrics: str | Metric | Sequence[str | Metric],
    deterministic: bool,
    batch_tokens: int | Literal["auto"],
    disk_budget: int | str | None,
    cache_dir: str | Path | None,
    fetching: Fetching | None = None,
) -> tuple[Question, ...]:
    """The same question to each series; the arguments are those of `sweep`, and so are the errors.

    Data is opened once for all that look at it. ArgumentError if there is no series, or two have
    the same name.
    """
    _check_names(series)
    chosen = sequences_argument(sequences)
    check_batch_tokens(batch_tokens)
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    resolved = resolve(metrics)
    parsed = [parse_steps(steps, each.steps, series=each.name) for each in series]
    datasets = _datasets(series, tokens, cache_dir)
    return tuple(
        Question(
            series=each,
            steps=of_it,
            metrics=resolved,
            dataset=dataset,
            sequences=chosen,
            deterministic=deterministic,
            batch_tokens=batch_tokens,
            budget_bytes=budget_bytes,
            fetching=fetching,
        )
        for each, of_it, dataset in zip(series, parsed, datasets, strict=True)
    )


def settled(
    asked: Sequence[Question],
    dtypes: Sequence[str],
    *,
    out: str | Path | None,
    several: bool,
    resume: bool,
    cache_dir: str | Path | None,
) -> tuple[Asked, ...]:
    """What each question comes to in the dtype of that name: its plan, and its folder, begun.

    With `several`, be it of one model, each has its folder in `out`, which else is the one. All
    plans are made before the first folder is. The errors of `sweep`.
    """
    plans = [each.plan(dtype) for each, dtype in zip(asked, dtypes, strict=True)]
    if out is None:
        pairs = zip(asked, plans, strict=True)
        paths = [default_folder(each.series, plan, cache_dir) for each, plan in pairs]
    elif several:
        parent = common_folder(out)
        paths = [parent / each.series.name for each in asked]
    else:
        paths = [expanded(out)]
    if not resume:
        paths = [fresh_folder(path, given=out is not None) for path in paths]
    return tuple(
        Asked(each.series, plan, _begun(each, plan, path), each.batch_tokens, each.budget_bytes)
        for each, plan, path in zip(asked, plans, paths, strict=True)
    )


def check_out(out: str | Path | None) -> None:
    """WriteError if results are to go to a new or empty folder, and none can be made there.

    Of a folder that holds something it is not known yet whether anything is to be written.
    """
    if out is None:
        return
    path = expanded(out)
    with writing(path):
        holds = path.is_dir() and any(path.iterdir())
    if not holds:
        require_writable(path, OTHER_OUT)


def common_folder(out: str | Path) -> Path:
    """Where the run folders of several models go. RunMismatchError if it is itself that of one."""
    path = expanded(out)
    if (path / "run.json").exists():
        raise RunMismatchError(
            f"{path} is the run folder of one model, and several need a folder each: give another "
            "`out` (--out), in which theirs are made"
        )
    return path


def default_folder(
    series: CheckpointSeries, plan: Plan, cache_dir: str | Path | None = None
) -> Path:
    """Where a run without `out` is kept: a folder that belongs to the call's arguments."""
    digest = fingerprint({"specification": plan.specification, "series": series.source})[:16]
    return cache_folder(cache_dir) / "runs" / f"{series.name}-{digest}"


def fresh_folder(path: Path, *, given: bool) -> Path:
    """A folder without a run: beside `path`, or `path` itself if the user gave it.

    RunMismatchError if the user's holds one.
    """
    if not given:
        return path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")
    if (path / "run.json").exists():
        raise RunMismatchError(f"{path} holds a run already and resume is False: {OTHER_OUT}")
    return path


def _begun(question: Question, plan: Plan, path: Path) -> RunFolder:
    """A model's run folder, which says from the first moment what it was asked for."""
    sources = {"model": question.series.source, "tokens": plan.dataset.address}
    folder = RunFolder(path, plan.specification, sources)
    try:
        folder.ask(plan.steps)
    except WriteError:
        folder.check_writable()  # says so of the run folder, if that is it
        raise
    return folder


def _check_names(series: Sequence[CheckpointSeries]) -> None:
    """ArgumentError unless each has a name of its own, by which its results are known."""
    if not series:
        raise ArgumentError("no models: name one, several or 'all'")
    times = Counter(each.name for each in series)
    for name in (name for name, count in times.items() if count > 1):
        sources = list(dict.fromkeys(each.source for each in series if each.name == name))
        if len(sources) == 1:
            raise ArgumentError(f"the model {name} is named twice: once is enough")
        raise ArgumentError(
            f"{' and '.join(sources)} have the same name, by which results are known: rename a "
            "folder, or sweep them one by one"
        )


def _datasets(
    series: Sequence[CheckpointSeries],
    tokens: TokenDataset | TokenSource | None,
    cache_dir: str | Path | None,
) -> list[TokenDataset]:
    """The data for each series, those of the same data sharing it."""
    if isinstance(tokens, TokenDataset):
        return [tokens] * len(series)
    if tokens is not None:
        return [TokenDataset(tokens, cache_dir=cache_dir)] * len(series)
    of_corpus: dict[str, TokenDataset] = {}
    found = []
    for each in series:
        corpus = each.spec.corpus
        if corpus is None:
            raise ArgumentError(
                f"{each.name} is a local folder, so its training data is not known: give tokens=, "
                "--tokens: the prefix of an .idx/.bin pair, or an integer array [N, L]"
            )
        if corpus not in of_corpus:
            of_corpus[corpus] = TokenDataset(f"hub:{corpus}", cache_dir=cache_dir)
        found.append(of_corpus[corpus])
    return found
