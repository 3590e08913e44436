"""A tree of published evaluations as one table."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pythia_fast.analysis.publications.naming import Subject, printable
from pythia_fast.analysis.publications.reading import Measure, Source, read_file
from pythia_fast.analysis.publications.repeats import marked
from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.tidy import TIDY

SCHEMA = pa.schema(
    [
        *TIDY,
        ("release", pa.string()),
        ("variant", pa.string()),
        ("prompt", pa.string()),
        ("trained_steps", pa.int64()),
        ("task_version", pa.string()),
        ("limit", pa.float64()),
        ("harness_model", pa.string()),
        ("evaluated", pa.string()),
        ("file", pa.string()),
        ("duplicate_of", pa.string()),
        ("status", pa.string()),
        ("problem", pa.string()),
    ]
)
"""The columns of `published`."""


def published(folder: str | Path) -> pa.Table:
    """Read a tree of evaluations, such as `evals/` of the Pythia repository or a folder of it.

    One row for each number, and one for each file without any. `model` is the suite's name
    ("1.4b-deduped-v0" of the first release), `step` the checkpoint's label and `trained_steps` the
    optimizer steps behind it, half as many in the first release of 160m, 410m and 1.4b. `task` and
    `metric` are called as in the file; `prompt` is that of WinoBias's. `variant` sets models apart
    that have the same name here: "intervention" and "long-intervention" (`model` is then the `base`
    of their spec, and this its `variant`), "baseline" (the suite's own model beside these), "bf16"
    (today's 1b), "0.5MtokBS" and the like (other batch sizes). Then what was evaluated and how, the
    `file` (relative to `folder`), and whether to trust it:

    - status "ok", "non-finite" (the value is NaN or infinite), "duplicate" (of a checkpoint, task
      and metric that `duplicate_of` evaluates already; where the evaluation was repeated the number
      may be another, as `problem` says), "doubtful" (the file contradicts itself, or has the
      numbers of another model), "foreign" (no model of the suite), "unreadable" (also a folder that
      cannot be listed or is a link), "other" (no results)
    - `problem`: what is odd, in words; null where nothing is.

    Rows of status "ok" hold a number once for each checkpoint, task, metric, prompt and
    `num_fewshot`. ArgumentError if there is no such folder.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise ArgumentError(
            f"{root} is no folder: give evals/ of a clone of github.com/EleutherAI/pythia"
        )
    unread: list[Source] = []
    names = _files(root, unread)
    sources = [source for name in names for source in read_file(root.absolute(), name)]
    return _table(marked([*sources, *unread]))


def _files(root: Path, unread: list[Source]) -> Iterator[str]:
    """All files below, in order, but none that is hidden; folders that are not read go to `unread`.

    Links to folders are not followed: they may lead back.
    """

    def tell(path: Path, problem: str) -> None:
        name = printable(path.relative_to(root).as_posix())
        unread.append(Source(name, Subject(None), status="unreadable", problem=problem))

    def refused(error: OSError) -> None:
        tell(Path(error.filename), f"the folder cannot be listed: {error.strerror}")

    for folder, below, names in os.walk(root, onerror=refused):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in below:
            if (path := Path(folder) / name).is_symlink():
                tell(path, "a link to a folder, which is not followed: give that folder itself")
        for name in sorted(names):
            if not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _table(sources: Sequence[Source]) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for source in sources:
        about = source.subject
        measures = source.measures or [Measure(None, None, None)]
        constant = {
            "model": about.model,
            "step": about.step,
            "release": about.release,
            "variant": about.variant,
            "trained_steps": about.trained_steps,
            "limit": source.limit,
            "harness_model": source.harness_model,
            "evaluated": about.evaluated,
            "file": source.file,
        }
        for name, value in constant.items():
            columns[name] += [value] * len(measures)
        for each in measures:
            status, problem = _judgement(source, each)
            shots = about.num_fewshot if each.num_fewshot is None else each.num_fewshot
            own = (each.task, each.metric, shots, each.value, each.stderr, each.prompt)
            names = ("task", "metric", "num_fewshot", "value", "stderr", "prompt")
            for name, value in zip(names, own, strict=True):
                columns[name].append(value)
            columns["duplicate_of"].append(each.duplicate_of or source.duplicate_of)
            columns["task_version"].append(each.task_version)
            columns["status"].append(status)
            columns["problem"].append(problem)
    return pa.table(columns, schema=SCHEMA)


def _judgement(source: Source, measure: Measure) -> tuple[str, str | None]:
    """A row's own status and problem, beside those of its file."""
    own = measure.problem
    status = source.status
    if own is not None and status == "ok":
        status = "unreadable" if measure.duplicate_of is None else "duplicate"
    if measure.value is not None and not math.isfinite(measure.value):
        own = "the value is not finite"
        status = "non-finite" if status == "ok" else status
    both = [words for words in (source.problem, own) if words]
    return status, "; ".join(both) or None
