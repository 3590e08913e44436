"""`pythia-fast view`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from pythia_fast.cli.frame import Command, common
from pythia_fast.cli.spans import Span, span
from pythia_fast.cli.view.find import ids_option, show_hits, wanted
from pythia_fast.cli.view.selection import select
from pythia_fast.errors import ArgumentError
from pythia_fast.suite import SEQUENCES_PER_STEP

Mode = Literal["text", "ids", "stats", "save"]

MOST = 1_000_000  # rows of a batch, tokens around a hit
SHOWN_ROWS = 5  # without --rows or --steps
MEANT_FOR = {
    "width": "--mode text",
    "out": "--mode save, or --mode stats with --function",
    "per_step": "--mode save",
    "dtype": "--mode save",
    "function": "--mode stats",
    "workers": "--function",
    "context": "--find and --find-ids",
    "max_hits": "--find and --find-ids",
}


def _out(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    if value == "":
        raise click.BadParameter("it is empty: give the name of what to write.")
    return None if value is None else Path(value)


@click.command(
    cls=Command,
    examples=(
        "pythia-fast view demo/data/train --tokenizer demo/suite/tokenizer.json",
        "pythia-fast view pile/document --steps 1000 --mode text --width 100",
        "pythia-fast view pile/document --steps 0:1000 --mode save --out seen.npy",
        "pythia-fast view pile/document --steps 0:1000 --mode save --per-step --out steps",
        "pythia-fast view pile/document --mode stats --function mine:count --out counts.jsonl",
        "pythia-fast view pile/document --steps 0:1000 --find 'Call me Ishmael'",
    ),
)
@click.argument("data")
@click.option(
    "--rows",
    callback=span,
    metavar="A:B",
    help="Which rows, from 0, without B. [default: 0:5 as text or ids, else all]",
)
@click.option(
    "--steps",
    callback=span,
    metavar="A:B",
    help="What was seen after checkpoint A up to checkpoint B: the rows from batch*A to batch*B, "
    "without the last. One number S is training step S, counted from 1, the same as S-1:S.",
)
@click.option(
    "--inclusive",
    is_flag=True,
    help="B belongs to A:B. In --steps, A and B are then the --start_iteration and "
    "--end_iteration of the suite's own batch viewer, which counts from 0.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1, max=MOST),
    default=SEQUENCES_PER_STEP,
    show_default=True,
    help="Rows that a training step saw.",
)
@click.option(
    "--mode",
    type=click.Choice(["text", "ids", "stats", "save"]),
    help="Text, token ids, numbers about the rows, or .npy files. "
    "[default: text with a tokenizer, else ids]",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, or its folder, for text. [default: one beside the data]",
)
@click.option("--width", type=click.IntRange(min=10), help="Break the lines of a text here.")
@click.option(
    "--out",
    type=click.Path(),
    callback=_out,
    help="Where to: a .npy file, with --per-step a folder, with --function a file of JSON lines.",
)
@click.option("--per-step", is_flag=True, help="Save a file for each step, step=000001.npy.")
@click.option(
    "--dtype",
    type=click.Choice(["uint16", "int32", "int64"]),
    help="What to save ids as. [default: what the data needs]",
)
@click.option(
    "--function",
    metavar="MODULE:NAME",
    help="For stats: a Python function from each step's batch, an int64 array [batch, L], to a "
    "dict; it becomes a JSON line. Modules of the current folder are found, and FILE.py:NAME.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes for it. [default: one a processor]"
)
@click.option("--find", metavar="TEXT", help="Search for a text, also with a space before it.")
@click.option("--find-ids", callback=ids_option, metavar="N,N,...", help="Search for these ids.")
@click.option(
    "--context",
    type=click.IntRange(min=0, max=MOST),
    help="Tokens shown on each side of a hit. [default: 8]",
)
@click.option(
    "--max-hits",
    type=click.IntRange(min=0),
    help="Show so many hits; all are counted. [default: 100]",
)
@common
def view(
    data: str,
    rows: Span | None,
    steps: Span | None,
    inclusive: bool,
    batch: int,
    mode: Mode | None,
    tokenizer: Path | None,
    width: int | None,
    out: Path | None,
    per_step: bool,
    dtype: str | None,
    function: str | None,
    workers: int | None,
    find: str | None,
    find_ids: list[int] | None,
    context: int | None,
    max_hits: int | None,
    as_json: bool,
) -> None:
    """Look at token data, search it, or take a part of it.

    DATA is the prefix of an .idx/.bin pair, the folder of its shards, a .npy file of integers
    [rows, T], or a data set of the Hub, such as hub:pile-deduped. --steps needs data in the order
    of training.

    Saving each step, or a function of each, goes on where the same command was stopped.

    Ends with 4 if the function failed for some steps.
    """
    searching = find is not None or find_ids is not None
    if mode in (None, "text") or find is not None:
        from pythia_fast.tokens.readable import tokenizer_beside

        tokenizer = tokenizer or tokenizer_beside(data)
    if mode is None:
        mode = "ids" if tokenizer is None else "text"
    _check_usage(click.get_current_context().params | {"mode": mode})
    if tokenizer is None and (mode == "text" or find is not None):
        raise click.UsageError(
            f"--{'mode text' if find is None else 'find'} needs --tokenizer, the path of a "
            "tokenizer.json: there is none beside the data"
        )
    from pythia_fast.tokens import TokenDataset, load_tokenizer

    dataset = TokenDataset(data)
    if out is not None:
        _spare_data(dataset.files, out)
    decoder = None if tokenizer is None else load_tokenizer(tokenizer)
    if (per_step or function is not None) and steps is None:
        steps = (None, None)
    default = SHOWN_ROWS if mode in ("text", "ids") and not searching else None
    chosen = select(dataset, rows, steps, batch, inclusive=inclusive, default=default)
    sequences = wanted(find, find_ids, decoder)
    if steps is not None and not sequences:
        click.echo(chosen.words(), err=True)
    if sequences:
        show_hits(
            dataset,
            chosen,
            sequences,
            decoder if mode == "text" else None,
            8 if context is None else context,
            100 if max_hits is None else max_hits,
            as_json=as_json,
        )
    elif out is not None and mode == "save":
        from pythia_fast.cli.view.save import save_each, save_one

        (save_each if per_step else save_one)(dataset, chosen, out, dtype, as_json=as_json)
    elif function is not None:
        from pythia_fast.cli.view.stats import run_function

        workers = workers or len(os.sched_getaffinity(0))
        run_function(dataset, chosen, function, workers, out, as_json=as_json)
    elif mode == "stats":
        from pythia_fast.cli.view.show import show_summary

        show_summary(dataset, chosen, as_json=as_json)
    else:
        from pythia_fast.cli.view.show import show_rows

        show_rows(dataset, chosen, decoder if mode == "text" else None, width, as_json=as_json)


def _spare_data(files: Iterable[Path], out: Path) -> None:
    """ArgumentError if `out` is one of the files that are read."""
    for path in files:
        try:
            same = out.samefile(path)
        except OSError:  # nothing is there; where it cannot be looked, writing tells
            continue
        if same:
            raise ArgumentError(f"--out {out} is a file of the data itself: write elsewhere")


def _check_usage(given: Mapping[str, Any]) -> None:
    """UsageError for options that exclude, need or know nothing of each other."""
    mode, by_function = given["mode"], given["function"] is not None
    searching = given["find"] is not None or given["find_ids"] is not None
    fits = {
        "width": mode == "text" and not searching,
        "out": mode == "save" or (mode == "stats" and by_function),
        "per_step": mode == "save",
        "dtype": mode == "save",
        "function": mode == "stats",
        "workers": by_function,
        "context": searching,
        "max_hits": searching,
    }
    for name, fit in fits.items():
        if given[name] not in (None, False) and not fit:
            raise click.UsageError(f"--{name.replace('_', '-')} is for {MEANT_FOR[name]}")
    for one, other in (("rows", "steps"), ("find", "find_ids")):
        if given[one] is not None and given[other] is not None:
            raise click.UsageError(f"--{one} and --{other.replace('_', '-')} exclude each other")
    if searching and mode in ("stats", "save"):
        raise click.UsageError(f"--mode {mode} does not search: leave out --find")
    if mode == "save" and given["out"] is None:
        raise click.UsageError("--mode save needs --out, where to write")
    if mode == "save" and not given["per_step"] and given["out"].suffix != ".npy":
        raise click.UsageError(
            f"--mode save writes a .npy file: give --out a name that ends so, not {given['out']}"
        )
    if given["rows"] is not None and (given["per_step"] or by_function):
        raise click.UsageError("this goes step by step: give --steps, not --rows")
    if given["inclusive"] and not any(isinstance(given[name], tuple) for name in ("rows", "steps")):
        raise click.UsageError("--inclusive is for an A:B of --steps or --rows")
