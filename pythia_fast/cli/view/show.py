"""Rows as text, as ids, or as numbers about them."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import print_json
from pythia_fast.cli.view.selection import Selection
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pythia_fast.tokens import TokenDataset


def show_rows(
    dataset: "TokenDataset",
    selection: Selection,
    tokenizer: "Tokenizer | None",
    width: int | None,
    *,
    as_json: bool,
) -> None:
    """Print each row: its text if there is a tokenizer, else its ids."""
    from pythia_fast.tokens.readable import decode, page

    if as_json:
        head = {"source": dataset.source, "selection": selection.as_json()}
        _print_stream(
            head,
            "rows",
            (
                selection.place(row)
                | {"tokens": len(ids)}
                | ({"ids": ids} if tokenizer is None else {"text": decode(tokenizer, ids)})
                for row, ids in _rows(dataset, selection.rows)
            ),
        )
        return
    for row, ids in _rows(dataset, selection.rows):
        place = ", ".join(f"{name} {number}" for name, number in selection.place(row).items())
        click.echo(f"--- {place}, {len(ids)} tokens")
        click.echo(" ".join(map(str, ids)) if tokenizer is None else page(tokenizer, ids, width))


def show_summary(dataset: "TokenDataset", selection: Selection, *, as_json: bool) -> None:
    """Print numbers about the rows, taken together."""
    from pythia_fast.tokens.passes.summary import summary

    with Bar("look at ids", "rows", len(selection.rows), on=True) as bar:
        found = summary(dataset, selection.rows, bar)
    if as_json:
        print_json(found | {"selection": selection.as_json()})
        return
    for name, value in found.items():
        click.echo(f"{name:<12} {value:,}" if isinstance(value, int) else f"{name:<12} {value}")


def _rows(dataset: "TokenDataset", rows: range) -> Iterator[tuple[int, list[int]]]:
    with Bar("show", "rows", len(rows), on=True, beside_output=True) as shown:
        for rows_n in dataset.blocks(rows):
            ids_nL, lengths_n = dataset.gather(rows_n), dataset.lengths_of(rows_n)
            for place, row in enumerate(rows_n.tolist()):
                yield row, ids_nL[place, : lengths_n[place]].tolist()
                shown.advance()


def _print_stream(head: dict[str, Any], name: str, items: Iterator[dict[str, Any]]) -> None:
    """One JSON document as `print_json` has it, of which the last list is never in memory."""
    opening = json.dumps(head | {name: []}, indent=2).removesuffix("[]\n}")
    click.echo(opening + "[", nl=False)
    comma = ""
    for item in items:
        text = json.dumps(item, indent=2).replace("\n", "\n    ")
        click.echo(f"{comma}\n    {text}", nl=False)
        comma = ","
    click.echo("\n  ]\n}")
