"""`pythia-fast stats`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.options import quiet_option
from pythia_fast.cli.spans import Span, span
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pythia_fast.tokens.passes.stats import TokenStats


@click.command(
    cls=Command,
    examples=(
        "pythia-fast stats demo/data/train --tokenizer demo/suite/tokenizer.json --end-id 256",
        "pythia-fast stats pile/document --rows 0:1024 --vocab-rows 50304 --top 20",
        "pythia-fast stats pile/document --counts counts.npy --json",
    ),
)
@click.argument("data")
@click.option(
    "--rows", callback=span, metavar="A:B", help="Which, from 0, without B. [default: all]"
)
@click.option(
    "--vocab-rows", type=click.IntRange(min=1), help="Count ids that are not below as outside."
)
@click.option(
    "--end-id",
    type=click.IntRange(min=0),
    help="The id after each document. [default: the tokenizer's <|endoftext|>, or 0]",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, or its folder, for text.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the most frequent ids to show.",
)
@click.option(
    "--counts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Save the count of every id as this .npy file.",
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: one a processor]")
@quiet_option
@common
def stats(
    data: str,
    rows: Span | None,
    vocab_rows: int | None,
    end_id: int | None,
    tokenizer: Path | None,
    top: int,
    counts: Path | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Count the tokens of DATA, and how long its rows are; DATA is what `view` takes."""
    from pythia_fast.cli.view.selection import select
    from pythia_fast.tokens import TokenDataset, load_tokenizer
    from pythia_fast.tokens.passes.stats import (
        END_OF_DOCUMENT,
        check_counts,
        save_counts,
        token_stats,
    )
    from pythia_fast.tokens.sources import END_OF_TEXT

    decoder = None if tokenizer is None else load_tokenizer(tokenizer)
    if end_id is None:
        found = None if decoder is None else decoder.token_to_id(END_OF_TEXT)
        end_id = END_OF_DOCUMENT if found is None else found
    dataset = TokenDataset(data)
    chosen = None
    if rows is not None:
        selected = select(dataset, rows, None, 1, inclusive=False, default=None).rows
        chosen = slice(selected.start, selected.stop)
    if counts is not None:
        check_counts(counts, dataset)
    with Bar("stats", "rows", on=not quiet) as progress:
        result = token_stats(
            dataset,
            chosen,
            vocab_rows=vocab_rows,
            end_id=end_id,
            threads=threads,
            progress=progress,
        )
    if counts is not None:
        save_counts(counts, result)
    if as_json:
        print_json(result.to_dict(top))
    else:
        _tell(result, top, decoder)


def _tell(result: "TokenStats", top: int, decoder: "Tokenizer | None") -> None:
    told = result.to_dict(top)
    most_frequent = told.pop("top")
    quantiles = told.pop("length_quantiles")
    for name, value in told.items():
        if isinstance(value, float):
            value = f"{value:,.2f}"
        click.echo(f"{name:<14} {f'{value:,}' if isinstance(value, int) else value}")
    if quantiles:
        shown_quantiles = ", ".join(
            f"{100 * float(part):g} %: {length:,}" for part, length in quantiles.items()
        )
        click.echo(f"{'lengths up to':<14} {shown_quantiles}")
    for entry in most_frequent:
        text = "" if decoder is None else f"  {_text(decoder, entry['id'])!r}"
        part = entry["count"] / result.tokens
        click.echo(f"{'id':<8}{entry['id']:>7}{entry['count']:>16,}  {part:7.3%}{text}")


def _text(decoder: "Tokenizer", token: int) -> str:
    return decoder.decode([token], skip_special_tokens=False)
