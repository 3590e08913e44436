"""`pythia-fast view`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pythia_fast.cli.frame import Command, common, print_json

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset

BLOCK_ROWS = 4096

Span = tuple[int | None, int | None]


def _span(_: click.Context, __: click.Parameter, value: str | None) -> Span | None:
    """First and end of "a:b", which is from a up to but without b, or of one number."""
    if value is None:
        return None
    if re.fullmatch(r"\d+", value, re.ASCII):
        return int(value), int(value) + 1
    match = re.fullmatch(r"(\d*):(\d*)", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a number nor a:b.")
    first, end = (int(part) if part else None for part in match.groups())
    return first, end


@click.command(
    cls=Command,
    examples=(
        "pythia-fast view demo/data/train --tokenizer demo/suite/tokenizer.json",
        "pythia-fast view demo/data/train --steps 100 --batch 4 --mode ids",
        "pythia-fast view pile/document --mode stats",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--rows", callback=_span, metavar="A:B", help="Which rows, from 0, without B. [default: 0:5]"
)
@click.option(
    "--steps",
    callback=_span,
    metavar="A:B",
    help="The rows that training steps saw, from 1, without B.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Rows that a training step saw, for --steps.",
)
@click.option("--tokenizer", type=click.Path(path_type=Path), help="A tokenizer.json, for text.")
@click.option(
    "--mode",
    type=click.Choice(["text", "ids", "stats"]),
    help="Text, token ids, or numbers about the rows. [default: text with a tokenizer, else ids]",
)
@common
def view(
    data: Path,
    rows: Span | None,
    steps: Span | None,
    batch: int,
    tokenizer: Path | None,
    mode: Literal["text", "ids", "stats"] | None,
    as_json: bool,
) -> None:
    """Look at token data: DATA is the prefix of an .idx/.bin pair.

    With data in the order of training, --steps 1:3 shows what the first two training steps saw:
    step s, counted from 1, sees the rows from batch*(s-1) up to batch*s.
    """
    if rows is not None and steps is not None:
        raise click.UsageError("--rows and --steps exclude each other")
    if mode is None:
        mode = "ids" if tokenizer is None else "text"
    if mode == "text" and tokenizer is None:
        raise click.UsageError("--mode text needs --tokenizer, the path of a tokenizer.json")
    from pythia_fast.tokens import TokenDataset

    dataset = TokenDataset(data)
    chosen = _chosen(len(dataset), rows, steps, batch, everything=mode == "stats")
    if mode == "stats":
        stats = statistics(dataset, chosen)
        if as_json:
            print_json(stats)
        else:
            for name, value in stats.items():
                click.echo(
                    f"{name:<12} {value:,}" if isinstance(value, int) else f"{name:<12} {value}"
                )
        return
    shown = _rows(dataset, chosen, tokenizer if mode == "text" else None)
    per_step = batch if steps is not None else None
    if as_json:
        print_json({"source": dataset.source, "rows": [_entry(each, per_step) for each in shown]})
        return
    for each in shown:
        entry = _entry(each, per_step)
        of_step = f", step {entry['step']}" if "step" in entry else ""
        click.echo(f"--- row {entry['row']}{of_step}, {entry['tokens']} tokens")
        click.echo(entry["text"] if mode == "text" else " ".join(map(str, entry["ids"])))


def statistics(dataset: "TokenDataset", rows: range) -> dict[str, Any]:
    """Numbers about some rows; none of them are in memory at once."""
    import numpy as np

    tokens, shortest, longest = 0, None, 0
    lowest: int | None = None
    highest: int | None = None
    for block in _blocks(rows):
        lengths = dataset.lengths_of(slice(block.start, block.stop))
        tokens += int(lengths.sum())
        longest = max(longest, int(lengths.max()))
        shortest = int(lengths.min()) if shortest is None else min(shortest, int(lengths.min()))
        ids_NL = dataset[block.start : block.stop]
        present = np.arange(ids_NL.shape[1]) < lengths[:, None]
        if present.any():
            low, high = int(ids_NL[present].min()), int(ids_NL[present].max())
            lowest = low if lowest is None else min(lowest, low)
            highest = high if highest is None else max(highest, high)
    return {
        "source": dataset.source,
        "dtype": dataset.dtype,
        "sequences": len(rows),
        "tokens": tokens,
        "shortest": shortest,
        "longest": longest,
        "mean_length": round(tokens / len(rows), 2) if rows else None,
        "lowest_id": lowest,
        "highest_id": highest,
        "fingerprint": dataset.fingerprint(slice(rows.start, rows.stop)),
    }


def _chosen(
    count: int, rows: Span | None, steps: Span | None, batch: int, *, everything: bool
) -> range:
    """The rows that are meant. ArgumentError if the data has none of them."""
    from pythia_fast.errors import ArgumentError

    if steps is not None:
        first, end = steps[0] or 1, steps[1]
        if steps[0] == 0:
            raise ArgumentError("training steps are counted from 1: step 0 has seen nothing")
        asked = f"steps {first}:{'' if end is None else end} of {batch} rows"
        wanted = range(batch * (first - 1), count if end is None else batch * (end - 1))
    elif rows is not None:
        asked = f"rows {rows[0] or 0}:{'' if rows[1] is None else rows[1]}"
        wanted = range(rows[0] or 0, count if rows[1] is None else rows[1])
    else:
        return range(count if everything else min(5, count))
    chosen = range(wanted.start, min(wanted.stop, count))
    if not chosen:
        raise ArgumentError(f"the data has {count:,} rows, and none of them is in {asked}")
    return chosen


def _blocks(rows: range) -> Iterator[range]:
    for first in range(rows.start, rows.stop, BLOCK_ROWS):
        yield range(first, min(first + BLOCK_ROWS, rows.stop))


def _rows(
    dataset: "TokenDataset", rows: range, tokenizer: Path | None
) -> Iterator[tuple[int, list[int], str | None]]:
    """Number, ids and, with a tokenizer, text of each row; special tokens are shown."""
    from pythia_fast.tokens import load_tokenizer

    decoder = None if tokenizer is None else load_tokenizer(tokenizer)
    for row in rows:
        ids = dataset[row].tolist()
        text = None if decoder is None else decoder.decode(ids, skip_special_tokens=False)
        yield row, ids, text


def _entry(shown: tuple[int, list[int], str | None], per_step: int | None) -> dict[str, Any]:
    row, ids, text = shown
    entry: dict[str, Any] = {"row": row}
    if per_step is not None:
        entry["step"] = row // per_step + 1
    entry["tokens"] = len(ids)
    return entry | ({"ids": ids} if text is None else {"text": text})
