"""What all case studies have in common: where the table and the figure go, and how they are told.

@click.command("training-order", cls=Command, examples=(...))
@runs_argument
@study_options
def training_order(runs, figure, table, as_json): ...
    tell(analysis.training_order(open_runs(runs)), figure, table, as_json=as_json)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pythia_fast.analysis.telling import FIGURE_KINDS, TABLE_KINDS, shown
from pythia_fast.cli.folders import run_folders
from pythia_fast.cli.frame import common, print_json
from pythia_fast.errors import ArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

    from pythia_fast.analysis.study import Study
    from pythia_fast.runs import SweepResult

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN_ROWS = 40

runs_argument = click.argument(
    "runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN..."
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Rows of a training step. [default: 1024 for the suite's models; else all count as seen]",
)
level_option = click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="The level of the intervals.",
)
details_option = click.option(
    "--details",
    type=click.Path(path_type=Path, file_okay=False),
    help="Save the tables behind it into this folder, as .parquet.",
)


def study_options(command: F) -> F:
    """Add --figure and --table, which the command gets as paths or None, and `common`."""
    figure = click.option(
        "--figure",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=ends_with(FIGURE_KINDS),
        help="Draw it into this .pdf, .png or .svg.",
    )
    table = click.option(
        "--table",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=ends_with(TABLE_KINDS),
        help="Save the table as this .csv, .parquet or .json.",
    )
    return figure(table(common(command)))


def open_runs(paths: Sequence[Path]) -> "list[SweepResult]":
    """The results in these run folders, and in those of folders that hold some.

    MissingCheckpointError where there is none.
    """
    from pythia_fast.runs import SweepResult

    return [SweepResult(path) for path in run_folders(paths)]


def tell(
    study: "Study",
    figure: Path | None,
    table: Path | None,
    *,
    as_json: bool,
    details: Path | None = None,
) -> None:
    """Save what is asked for and print the rest: the table, and below it what it comes to.

    ArgumentError, and nothing is saved, if nothing was found.
    """
    if not len(study.table):
        told = "; ".join(f"{name}: {shown(value)}" for name, value in study.summary.items())
        raise ArgumentError(f"nothing was found, so nothing is saved ({told})")
    saved = []
    if table is not None:
        saved.append(study.save_table(table))
    if details is not None:
        saved += study.save_details(details)
    if figure is not None:
        saved.append(study.save_figure(figure))
    if as_json:
        print_json(
            {"study": study.name, "summary": dict(study.summary), "rows": study.table.to_pylist()}
        )
    else:
        for line in _lines(study.table):
            click.echo(line)
        for name, value in study.summary.items():
            click.echo(f"{name}: {shown(value)}")
    for path in saved:
        click.echo(f"kept in {path}", err=True)


def ends_with(
    kinds: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """The callback of an option that is a file of one of these kinds: wrong usage if it is none."""

    def check(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in kinds:
            raise click.BadParameter(f"{str(value)!r} ends with none of {', '.join(kinds)}.")
        return value

    return check


def _lines(table: "pa.Table") -> Iterator[str]:
    """The first rows, in columns; an interval stands beside its number, and no column is empty."""
    names = [n for n in table.column_names if table[n].null_count < len(table)]
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high")}
    names = [name for name in names if name not in ends]
    rows = table.slice(0, _SHOWN_ROWS).to_pylist()
    cells = [names, *([_cell(row, name) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells if rows else ():
        yield "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
    if len(table) > _SHOWN_ROWS:
        yield f"… and {len(table) - _SHOWN_ROWS:,} more rows: --table saves them all"


def _cell(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
    return shown(row[name]) + interval
