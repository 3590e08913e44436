"""`pythia-fast published`."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import Command, print_json
from pythia_fast.cli.study.frame import study_options, tell
from pythia_fast.errors import ArgumentError
from pythia_fast.progress import clock
from pythia_fast.quantities import counted
from pythia_fast.words import listed

if TYPE_CHECKING:
    import pyarrow as pa

_FILES_TOLD = 3  # with the same problem, in its line


@click.command(
    cls=Command,
    examples=(
        "pythia-fast published pythia/evals",
        "pythia-fast published pythia/evals --table evals.parquet",
        "pythia-fast published pythia/evals --compare evals/70m --figure differences.pdf",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--compare",
    "ours",
    type=click.Path(path_type=Path),
    help="The folder of an evaluation of ours, to be compared task by task.",
)
@study_options
def published(
    folder: Path, ours: Path | None, figure: Path | None, table: Path | None, as_json: bool
) -> None:
    """Read the suite's published evaluations, and compare an evaluation of ours with them.

    FOLDER is evals/ of a clone of github.com/EleutherAI/pythia, or a folder of it. What is odd in
    it is told: files that cannot be read, contradict themselves or repeat others.
    """
    if figure is not None and ours is None:
        raise click.UsageError("--figure is of the comparison: give --compare")
    from pythia_fast import analysis

    with clock("read the evaluations"):
        found = analysis.published(folder)
    if not found["value"].null_count < len(found):
        raise ArgumentError(_nothing(folder, found))
    if ours is not None:
        from pythia_fast.evaluation.results import EvaluationResult

        study = analysis.compare(EvaluationResult(ours), found)
        if not len(study.table):
            raise ArgumentError(f"nothing to compare: {study.summary['nothing to compare']}")
        tell(study, figure, table, as_json=as_json)
        return
    if table is not None:
        from pythia_fast.analysis.saving import save_table

        click.echo(f"kept in {save_table(found, table)}", err=True)
    document = _document(found)
    if as_json:
        print_json(document)
        return
    for line in _lines(document):
        click.echo(line)


def _document(found: "pa.Table") -> dict[str, Any]:
    """How much there is of what, and what is odd with which files."""
    rows = found.select(["model", "step", "task", "file", "status", "problem"]).to_pylist()
    others = {row["file"] for row in rows if row["status"] == "other"}
    rows = [row for row in rows if row["status"] != "other"]
    numbers = [row for row in rows if row["task"] is not None and row["status"] != "foreign"]
    problems: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if row["problem"] is not None:
            key = (row["status"], row["problem"])
            problems.setdefault(key, Counter())[row["file"]] += 1
    return {
        "rows": len(rows),
        "files": len({row["file"] for row in rows}),
        "other_files": sorted(others),
        "models": sorted({row["model"] for row in numbers if row["model"] is not None}),
        "steps": len({row["step"] for row in numbers}),
        "tasks": len({row["task"] for row in numbers}),
        "status": dict(Counter(row["status"] for row in rows).most_common()),
        "problems": [
            {"status": status, "problem": problem, "rows": files.total(), "files": list(files)}
            for (status, problem), files in problems.items()
        ],
    }


def _nothing(folder: Path, found: "pa.Table") -> str:
    """Why there are no numbers."""
    problems = dict.fromkeys(
        f"{row['file']}: {row['problem']}"
        for row in found.select(["file", "status", "problem"]).to_pylist()
        if row["status"] != "other"
    )
    said = f" ({listed(problems, _FILES_TOLD, between='; ')})" if problems else ""
    return (
        f"there are no evaluations in {folder}{said}: give evals/ of a clone of "
        "github.com/EleutherAI/pythia, or a folder of it"
    )


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{document['rows']:,} rows from {document['files']:,} files; models: "
        f"{len(document['models'])}, steps: {document['steps']}, tasks: {document['tasks']}"
    )
    for status, count in document["status"].items():
        yield f"{status:>12}  {count:>9,} rows"
    kinds: dict[tuple[str, str], list[str]] = {}
    for problem in document["problems"]:
        kind = _kind(problem["problem"])
        kinds.setdefault((problem["status"], kind), []).extend(problem["files"])
    for (status, kind), files in kinds.items():
        files = list(dict.fromkeys(files))
        shown = listed(files, _FILES_TOLD)
        yield f"{status}: {kind} ({counted(len(files), 'file')}: {shown})"
    others = document["other_files"]
    if others:
        shown = listed(others, _FILES_TOLD)
        yield f"not counted: {len(others)} that are neither .json nor .csv ({shown})"


def _kind(problem: str) -> str:
    """A problem without the numbers and names in it, so that the same ones stand together."""
    problem = re.sub(r"\d+%", "most", problem)
    return re.sub(r"\S+\.(?:json|csv)(, of [^:]+)?", "another file", problem)
