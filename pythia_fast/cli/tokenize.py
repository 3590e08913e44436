"""`pythia-fast tokenize`."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json
from pythia_fast.cli.options import quiet_option
from pythia_fast.cli.prefix import prefix
from pythia_fast.progress import Bar
from pythia_fast.quantities import counted


@click.command(
    cls=Command,
    examples=(
        "pythia-fast tokenize pile/*.jsonl.zst --tokenizer tokenizer.json --out pile --append-eod",
        "pythia-fast tokenize book.txt --split paragraph --tokenizer tokenizer.json --out book",
        "pythia-fast tokenize - --split line --tokenizer t.json --out texts < lines",
    ),
)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    required=True,
    help="A tokenizer.json, or its folder.",
)
@click.option(
    "--out", callback=prefix, metavar="PREFIX", required=True, help="The prefix of the new pair."
)
@click.option("--force", is_flag=True, help="Replace a pair that is there.")
@click.option(
    "--format",
    type=click.Choice(["auto", "text", "jsonl"]),
    default="auto",
    show_default=True,
    help="auto: by the name's ending (.jsonl, .ndjson, .json); standard input is text.",
)
@click.option("--field", default="text", show_default=True, help="Where JSONL has the text.")
@click.option(
    "--split",
    type=click.Choice(["file", "line", "paragraph"]),
    default="file",
    show_default=True,
    help="What of a text file is a document.",
)
@click.option(
    "--append-eod/--no-append-eod",
    default=None,
    help="Put <|endoftext|> after each document. [default: only with --row-tokens]",
)
@click.option(
    "--row-tokens",
    type=click.IntRange(min=2),
    help="Join the documents and cut rows of so many tokens, each beginning with the last token of "
    "the one before; 2049 for Pythia. [default: each document is a row]",
)
@click.option("--keep-empty", is_flag=True, help="Keep documents without a token.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="When a line is no UTF-8, no JSON, or has no text: stop, or leave it out and count it.",
)
@quiet_option
@common
def tokenize(
    inputs: tuple[str, ...],
    tokenizer: Path,
    out: str,
    force: bool,
    format: Literal["auto", "text", "jsonl"],
    field: str,
    split: Literal["file", "line", "paragraph"],
    append_eod: bool | None,
    row_tokens: int | None,
    keep_empty: bool,
    on_error: Literal["raise", "skip"],
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn the texts in INPUTS into an .idx/.bin pair.

    Inputs are text or JSONL, plain or compressed (.gz, .bz2, .xz, .zst), or - for standard input.

    Ends with 4 if --on-error skip left something out. Documents without a token are no mistake:
    they are left out, or kept by --keep-empty, and it ends with 0. If nothing is left, with 3.
    """
    from pythia_fast.tokens.text.tokenize import tokenize as run

    with Bar("tokenize", "tokens", on=not quiet) as progress:
        done = run(
            inputs,
            tokenizer,
            out,
            format=format,
            field=field,
            split=split,
            append_eod=append_eod,
            row_tokens=row_tokens,
            keep_empty=keep_empty,
            on_error=on_error,
            overwrite=force,
            progress=lambda _, tokens: progress(tokens),
        )
    if as_json:
        print_json({"out": out, **asdict(done)})
    else:
        click.echo(
            f"{out}: {counted(done.rows, 'row')}, {counted(done.tokens, 'token')} of "
            f"{counted(done.documents, 'document')}, as {done.dtype}"
        )
        if done.tokens_left:
            left = counted(done.tokens_left, "token")
            click.echo(f"{left} at the end, too few for a row, left out", err=True)
        if done.empty:
            click.echo(f"{counted(done.empty, 'empty document')} left out", err=True)
        for mistake in done.first_mistakes:
            click.echo(f"skipped: {mistake}", err=True)
        if done.mistakes > len(done.first_mistakes):
            click.echo(f"skipped: {done.mistakes:,} in all", err=True)
    if done.mistakes:
        raise click.exceptions.Exit(INCOMPLETE)
