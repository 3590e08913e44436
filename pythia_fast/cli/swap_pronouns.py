"""`pythia-fast swap-pronouns`."""

from dataclasses import asdict
from pathlib import Path

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.options import quiet_option
from pythia_fast.cli.prefix import prefix
from pythia_fast.cli.spans import Span, as_slice, span
from pythia_fast.progress import Bar


@click.command(
    "swap-pronouns",
    cls=Command,
    examples=(
        "pythia-fast swap-pronouns pile/document --tokenizer tokenizer.json --after-step 133000 "
        "--out pile/swapped",
        "pythia-fast swap-pronouns pile/document --tokenizer tokenizer.json --rows 0:1024 --out s",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), required=True, help="The data's tokenizer.json."
)
@click.option(
    "--out", callback=prefix, metavar="PREFIX", required=True, help="The prefix of the new pair."
)
@click.option(
    "--after-step",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The checkpoint that training goes on from; what it has seen is not swapped.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Rows that a training step sees.",
)
@click.option(
    "--rows", callback=span, metavar="A:B", help="Write these rows only. [default: all of them]"
)
@click.option("--pieces", is_flag=True, help="Swap a token also where it begins a longer word.")
@click.option("--force", is_flag=True, help="Replace a pair that is there.")
@quiet_option
@common
def swap_pronouns(
    data: Path,
    tokenizer: Path,
    out: str,
    after_step: int,
    batch: int,
    rows: Span | None,
    pieces: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write DATA with masculine pronouns made feminine, for an intervention like the suite's.

    DATA is the prefix of an .idx/.bin pair in training order. " he", " him" and " his" become
    " she", " her" and " her", and likewise the capitalised ones: token by token, so that every row
    keeps its length and place. With --after-step 133000 that is the last 7% of the suite's
    training, with 113000 the last 21%.

    A token that begins a longer word stays, as in " he" + "mat". That is a default of ours, and
    --pieces the literal swap of every such token. Which of the two the suite did is not published.
    """
    from pythia_fast.analysis.pronouns import swap_pronouns as run

    with Bar("swap pronouns", "rows", on=not quiet) as progress:
        done = run(
            data,
            out,
            tokenizer=tokenizer,
            after_step=after_step,
            batch=batch,
            rows=None if rows is None else as_slice(rows),
            whole_words=not pieces,
            overwrite=force,
            progress=progress,
        )
    if as_json:
        print_json({"out": out, **asdict(done), "swaps": done.swaps})
        return
    click.echo(
        f"{out}: {done.rows:,} rows, {done.tokens:,} tokens as {done.dtype}; {done.swaps:,} "
        f"pronouns swapped in {done.rows_changed:,} rows"
    )
    for text, count in done.counts.items():
        click.echo(f"{text!r}: {count:,}")
