"""`--find` and `--find-ids`: where a text or a sequence of ids occurs."""

from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import print_json
from pythia_fast.cli.view.selection import Selection
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    from pythia_fast.tokens import TokenDataset


def ids_option(_: click.Context, __: click.Parameter, value: str | None) -> list[int] | None:
    """The numbers of "12,34,56"."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of ids with commas.") from None


def wanted(
    text: str | None, ids: list[int] | None, tokenizer: "Tokenizer | None"
) -> dict[str, list[int]]:
    """The sequences to look for, by their names; none if nothing is to be found."""
    from pythia_fast.tokens.find import spellings

    if ids is not None:
        return {joined(ids): ids}
    return {} if text is None or tokenizer is None else spellings(text, tokenizer)


def show_hits(
    dataset: "TokenDataset",
    selection: Selection,
    sequences: dict[str, list[int]],
    tokenizer: "Tokenizer | None",
    context: int,
    max_hits: int,
    *,
    as_json: bool,
) -> None:
    """Print the first hits, in the order of rows, and at the end how many there are of all.

    `sequences` are named ids; with a tokenizer a hit and what is around it are shown as text.
    """
    from pythia_fast.tokens.find import search

    told = " and ".join(f"{name!r} ({joined(ids)})" for name, ids in sequences.items())
    click.echo(f"looking for {told} in {selection.words()}", err=True)
    names = list(sequences)
    counts = [0] * len(names)
    kept: list[dict[str, Any]] = []
    shown = 0
    with Bar("find", "rows", len(selection.rows), on=True) as progress:
        for found in search(dataset, list(sequences.values()), selection.rows):
            for which, hits in enumerate(found.hits):
                counts[which] += len(hits)
            for row, column, which in _merged(found.hits, max_hits - shown):
                hit = _hit(dataset, selection.batch, row, column, sequences[names[which]], context)
                if tokenizer is not None:
                    hit = {key: _text(tokenizer, value) for key, value in hit.items()}
                shown += 1
                if as_json:
                    kept.append(hit | {"sequence": which})
                else:
                    with progress.aside():
                        click.echo(_line(hit))
            progress.advance(found.rows)
    if as_json:
        print_json(
            {
                "source": dataset.source,
                "selection": selection.as_json(),
                "sequences": [
                    {"name": name, "ids": sequences[name], "count": count}
                    for name, count in zip(names, counts, strict=True)
                ],
                "count": sum(counts),
                "hits": kept,
            }
        )
        return
    of_each = ", ".join(f"{n:,} of {name!r}" for n, name in zip(counts, names, strict=True))
    total = sum(counts)
    click.echo(
        f"{total:,} {'hit' if total == 1 else 'hits'}"
        + (f" ({of_each})" if len(names) > 1 else "")
        + (f", the first {shown:,} of them shown" if shown < total else "")
    )


def _merged(hits: "Sequence[npt.NDArray[np.int64]]", most: int) -> list[tuple[int, int, int]]:
    """(row, column, which sequence) of the first `most` hits of a block, in order."""
    every = [
        (row, column, which)
        for which, of_one in enumerate(hits)
        for row, column in of_one[: max(0, most)].tolist()
    ]
    return sorted(every)[: max(0, most)]


def _hit(
    dataset: "TokenDataset", batch: int, row: int, column: int, ids: list[int], context: int
) -> dict[str, Any]:
    from pythia_fast.tokens.steps import position_of

    begin, end = max(0, column - context), column + len(ids)
    around = dataset.gather([row], columns=slice(begin, end + context))[0].tolist()
    at = position_of(row, batch)
    return {
        "row": row,
        "step": at.step,
        "position": at.position,
        "column": column,
        "before": around[: column - begin],
        "match": ids,
        "after": around[end - begin :],
    }


def _text(tokenizer: "Tokenizer", value: Any) -> Any:
    from pythia_fast.tokens.readable import decode

    return decode(tokenizer, value) if isinstance(value, list) else value


def _line(hit: dict[str, Any]) -> str:
    from pythia_fast.tokens.readable import on_one_line

    place = ", ".join(f"{name} {hit[name]}" for name in ("row", "step", "position", "column"))
    before, match, after = (hit[name] for name in ("before", "match", "after"))
    if isinstance(match, str):
        return f"{place}: {on_one_line(before)}>>{on_one_line(match)}<<{on_one_line(after)}"
    return f"{place}: {joined(before)} >> {joined(match)} << {joined(after)}"


def joined(ids: list[int]) -> str:
    """As --find-ids takes them."""
    return ",".join(map(str, ids))
