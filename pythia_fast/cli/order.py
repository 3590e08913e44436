"""`pythia-fast order`: the training order, built, checked and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import Command, Group, common, print_json
from pythia_fast.cli.options import quiet_option
from pythia_fast.cli.prefix import prefix
from pythia_fast.cli.spans import Span, as_slice, span
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from pythia_fast.tokens.order import Order

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="[default: this process's processors]"
)


@click.group(
    cls=Group,
    examples=(
        "pythia-fast order build pile/document",
        "pythia-fast order check pile/document --data pile/document",
        "pythia-fast order verify pile/document preshuffled/document --rows 0:1024",
    ),
)
def order() -> None:
    """The order in which training saw its data, bit for bit as GPT-NeoX v1.0 makes it."""


@order.command(
    cls=Command,
    examples=(
        "pythia-fast order build pile/document",
        "pythia-fast order build demo/data/train --samples 1000 --sequence-length 64 --seed 7",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1234, show_default=True)
@click.option(
    "--sequence-length",
    type=click.IntRange(1, 2**31 - 1),
    default=2048,
    show_default=True,
    help="Tokens of a sample, without the one that the next begins with.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="How many training asks for: steps x batch x 1.005, rounded up. [default: Pythia's]",
)
@click.option(
    "--out",
    callback=prefix,
    metavar="PREFIX",
    help="What the files' names begin with. [default: DATA, where GPT-NeoX looks for them]",
)
@click.option("--name", default="train_0", show_default=True, help="What GPT-NeoX calls the data.")
@threads_option
@quiet_option
@common
def build(
    data: Path,
    seed: int,
    sequence_length: int,
    samples: int | None,
    out: str | None,
    name: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build the order of raw (not shuffled) data and keep it as three .npy files.

    DATA is the prefix of an .idx/.bin pair. GPT-NeoX finds the files and trains by them.
    """
    from pythia_fast.tokens.files import find_files
    from pythia_fast.tokens.order import PYTHIA_SAMPLES
    from pythia_fast.tokens.order import build as build_order
    from pythia_fast.tokens.shards import refuse_hub

    refuse_hub(data)
    beside = find_files(data).index.with_suffix("")
    with Bar("build order", "entries", on=not quiet) as bar:
        built = build_order(
            data,
            seed=seed,
            sequence_length=sequence_length,
            samples=PYTHIA_SAMPLES if samples is None else samples,
            threads=threads,
            progress=bar,
        )
        bar.describe("save order")
        stem = built.save(beside if out is None else out, name=name)
    _say(built, stem, as_json)


@order.command(
    cls=Command,
    examples=(
        "pythia-fast order check pile/document",
        "pythia-fast order check pile/document_train_0_indexmap_147164160ns_2048sl_1234s "
        "--data pile/document",
    ),
)
@click.argument("files", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="The raw data, for a check to the last row."
)
@threads_option
@quiet_option
@common
def check(files: Path, data: Path | None, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Read a whole order, by GPT-NeoX or by `build`, and see whether it is one.

    FILES is the prefix of the data beside which the order lies, the stem of its three files, or
    one of them. Exit code 3 says that it is none.
    """
    from pythia_fast.tokens.order import Order

    found = Order.load(files)
    with Bar("check order", "documents", on=not quiet) as bar:
        found.check(data, threads=threads, progress=bar)
    assert found.files is not None
    _say(found, found.files.stem, as_json)


@order.command(
    cls=Command,
    examples=(
        "pythia-fast order verify pile/document preshuffled/document",
        "pythia-fast order verify pile/document preshuffled/document --rows 0:1024 --json",
    ),
)
@click.argument("raw", type=click.Path(path_type=Path))
@click.argument("preshuffled")
@click.option(
    "--order",
    "files",
    type=click.Path(path_type=Path),
    help="The order's files. [default: those beside RAW]",
)
@click.option(
    "--rows", callback=span, metavar="A:B", help="Which rows, from 0, without B. [default: all]"
)
@threads_option
@quiet_option
@common
def verify(
    raw: Path,
    preshuffled: str,
    files: Path | None,
    rows: Span | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check an order, and compare raw data that is read in it with data that was shuffled before.

    Exit code 3 says that the order is none, or that a row differs, and which.
    """
    from pythia_fast.errors import ArgumentError, OrderMismatchError
    from pythia_fast.tokens import TokenDataset
    from pythia_fast.tokens.files import find_files
    from pythia_fast.tokens.order import Order
    from pythia_fast.tokens.order import verify as verify_rows

    order = Order.load(find_files(raw).index if files is None else files)
    data = TokenDataset(raw)
    with Bar("check order", "documents", on=not quiet) as bar:
        order.check(data, threads=threads, progress=bar)
    in_order = data.in_order(order)
    chosen = None if rows is None else as_slice(rows)
    try:
        with Bar("compare rows", "rows", on=not quiet) as bar:
            compared = verify_rows(
                in_order,
                TokenDataset(preshuffled),
                rows=chosen,
                threads=threads,
                progress=bar,
            )
    except OrderMismatchError as error:
        if as_json:
            difference = {
                "row": error.row,
                "column": error.column,
                "found": error.found,
                "expected": error.expected,
            }
            print_json({"same": False, "rows": error.rows, "difference": difference})
        raise
    if compared == 0:
        raise ArgumentError(
            "there are no such rows, so nothing was compared: give others as --rows"
        )
    if as_json:
        print_json({"same": True, "rows": compared, "difference": None})
    else:
        click.echo(f"{compared:,} rows are the same")


def _say(order: "Order", stem: Path, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "stem": str(stem),
        "samples": len(order),
        "asked_for": order.samples,
        "sequence_length": order.sequence_length,
        "seed": order.seed,
        "documents": len(order.doc_idx),
        "bytes": order.nbytes,
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) and key != "seed" else value
        click.echo(f"{key.replace('_', ' '):<16} {shown}")
