"""`pythia-fast study term-frequency`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.analysis.telling import TABLE_KINDS
from pythia_fast.cli.frame import Command
from pythia_fast.cli.options import quiet_option
from pythia_fast.cli.study.frame import (
    details_option,
    ends_with,
    open_runs,
    study_options,
    tell,
)
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    import pyarrow as pa

_RULES = ("spaced", "word", "anywhere")


@click.command(
    "term-frequency",
    cls=Command,
    examples=(
        "pythia-fast study term-frequency runs/arithmetic-410m --data pile/document "
        "--tokenizer tokenizer.json --save-counts counts.parquet --figure frequency.pdf",
        "pythia-fast study term-frequency --published pythia/evals --counts counts.parquet",
    ),
)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "--published",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="The suite's published evaluations: its evals folder, or one of its folders.",
)
@click.option(
    "--counts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Counts that an earlier call has saved.",
)
@click.option("--data", help="Count anew in this data in training order: a prefix, or hub:….")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="The tokenizer.json, with --data."
)
@click.option(
    "--rule",
    type=click.Choice(_RULES),
    default="spaced",
    show_default=True,
    help="Count a number between spaces, unless a letter or digit joins it, or also inside others.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Rows of the data that a training step saw.",
)
@click.option(
    "--save-counts",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=ends_with(TABLE_KINDS),
    metavar="FILE",
    help="Save the counts as this .parquet, .csv or .json.",
)
@click.option("--bins", type=click.IntRange(min=1), default=20, show_default=True)
@quiet_option
@details_option
@study_options
def term_frequency(
    runs: tuple[Path, ...],
    published: Path | None,
    counts: Path | None,
    data: str | None,
    tokenizer: Path | None,
    rule: str,
    batch: int,
    save_counts: Path | None,
    bins: int,
    quiet: bool,
    details: Path | None,
    figure: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """Whether models reckon better with numbers that they have seen more often.

    The RUNs are folders of `pythia-fast study arithmetic`. Numbers are counted in what each
    checkpoint has seen of --data, which is read once; --save-counts keeps that for later calls.
    """
    if not runs and published is None:
        raise click.UsageError("Give RUN folders, or --published.")
    if (counts is None) == (data is None):
        raise click.UsageError("Give one of --counts and --data.")
    if data is not None and tokenizer is None:
        raise click.UsageError("--data needs --tokenizer.")
    if counts is not None and save_counts is not None:
        raise click.UsageError("--save-counts is for counts made anew, with --data.")
    from pythia_fast.analysis.answered import answered
    from pythia_fast.analysis.frequency import term_frequency as run
    from pythia_fast.analysis.saving import save_table

    results: list[object] = list(open_runs(runs))
    if published is not None:
        from pythia_fast.analysis import published as read

        results.append(read(published))
    if counts is not None:
        counted = _read(counts)
    else:
        asked = answered(results).rows
        assert data is not None
        assert tokenizer is not None
        steps = sorted({each.step for each in asked})
        numbers = sorted({each.first for each in asked})
        counted = _count(data, tokenizer, steps, numbers, rule, batch, quiet)
        if save_counts is not None:
            click.echo(f"kept in {save_table(counted, save_counts)}", err=True)
    tell(run(results, counted, bins=bins), figure, table, as_json=as_json, details=details)


def _count(
    data: str,
    tokenizer: Path,
    steps: list[int],
    numbers: list[int],
    rule: str,
    batch: int,
    quiet: bool,
) -> "pa.Table":
    from pythia_fast.tokens.passes.terms import Terms, count_terms

    terms = Terms.numbers(numbers, tokenizer, rule=rule)
    with Bar("count numbers", "rows", on=not quiet) as progress:
        return count_terms(data, terms, steps, batch=batch, progress=progress).table


def _read(path: Path) -> "pa.Table":
    """A table that was saved, by its ending."""
    import json

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from pythia_fast.errors import FormatError, ReadError

    try:
        if path.suffix.lower() == ".csv":
            types = {"step": pa.int64(), "term": pa.string(), "count": pa.int64()}
            options = pa.csv.ConvertOptions(column_types=types)
            return pa.csv.read_csv(path, convert_options=options)
        if path.suffix.lower() == ".json":
            return pa.Table.from_pylist(json.loads(path.read_text()))
        return pq.read_table(path)
    except (AttributeError, KeyError, TypeError) as error:  # JSON, but no list of rows
        raise FormatError(path, "it holds no counts: it is no list of rows") from error
    except OSError as error:
        raise ReadError.of(path, error) from error
    except (pa.ArrowException, ValueError) as error:
        raise FormatError(path, f"it holds no counts: {error}") from error
