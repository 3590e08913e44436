"""`pythia-fast shard` and `pythia-fast unshard`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.prefix import prefix
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from pythia_fast.tokens.shards import Written

_resume = click.option(
    "--no-resume", is_flag=True, help="Discard what an interrupted attempt has left."
)
_quiet = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


@click.command(
    cls=Command,
    examples=(
        "pythia-fast unshard pile-deduped-pythia-preshuffled --out /data/pile/document",
        "pythia-fast unshard shards/pile_0.87_deduped_text_document --out whole/",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    callback=prefix,
    metavar="PREFIX",
    help="The prefix of the pair, or a folder (ending in / if it is not there); not that of the "
    "shards, which would hold the data twice.",
)
@_resume
@_quiet
@common
def unshard(data: Path, out: str, no_resume: bool, quiet: bool, as_json: bool) -> None:
    """Join the shards of DATA into one .bin; its .idx comes with it.

    DATA is the folder of …-000NN-of-000MM.bin and their .idx, or the prefix of these names. Other
    commands read shards as they are: this is for tools that want one file. Where the file system
    shares blocks (btrfs, XFS), what lies at whole blocks takes neither time nor room.

    The same command goes on where an earlier one was stopped.
    """
    from pythia_fast.tokens import shards

    with Bar("unshard", "B", on=not quiet) as progress:
        written = shards.unshard(data, out, resume=not no_resume, progress=progress)
    _tell(written, as_json)


@click.command(
    cls=Command,
    examples=(
        "pythia-fast shard /data/pile/document --out shards",
        "pythia-fast shard demo/data/train --out shards --shard-bytes 1048576",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder of the shards.",
)
@click.option(
    "--shard-bytes",
    type=click.IntRange(min=1),
    default=5_000_000_000,
    show_default=True,
    help="The size of all shards but the last. Only multiples of 4096 can share their blocks.",
)
@_resume
@_quiet
@common
def shard(
    data: Path, out: Path, shard_bytes: int, no_resume: bool, quiet: bool, as_json: bool
) -> None:
    """Cut the .bin of DATA into shards; its .idx comes with them.

    DATA is the prefix of an .idx/.bin pair. Shards are named …-000NN-of-000MM.bin, where MM is the
    number of the last one. The same command goes on where an earlier one was stopped.
    """
    from pythia_fast.tokens import shards

    with Bar("shard", "B", on=not quiet) as progress:
        written = shards.shard(
            data, out, shard_bytes=shard_bytes, resume=not no_resume, progress=progress
        )
    _tell(written, as_json)


def _tell(written: "Written", as_json: bool) -> None:
    if as_json:
        print_json(_document(written))
        return
    for path in (*written.bins, written.index):
        click.echo(path)
    remarks = [f"{written.total_bytes:,} bytes"]
    if written.resumed_bytes:
        remarks.append(f"{written.resumed_bytes:,} of them by an earlier attempt")
    if written.shared_bytes:
        remarks.append(f"{written.shared_bytes:,} share their blocks with the source")
    click.echo(", ".join(remarks), err=True)


def _document(written: "Written") -> dict[str, Any]:
    return {
        "bins": [str(path) for path in written.bins],
        "index": str(written.index),
        "total_bytes": written.total_bytes,
        "resumed_bytes": written.resumed_bytes,
        "shared_bytes": written.shared_bytes,
    }
