"""`pythia-fast checksum`."""

import re
from pathlib import Path

import click

from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json
from pythia_fast.cli.options import quiet_option
from pythia_fast.progress import Bar


def _sha256(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter("a sha256 has 64 hexadecimal digits.")
    return None if value is None else value.lower()


@click.command(
    cls=Command,
    examples=(
        "pythia-fast checksum pythia_deduped_pile_idxmaps --against shard_hashes.txt",
        "pythia-fast checksum shards > SHA256SUMS",
        "pythia-fast checksum shards --whole",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="A list of checksums: as sha256sum writes it, or name first.",
)
@click.option(
    "--whole", is_flag=True, help="One checksum: of the .bin, or of that which the shards make."
)
@click.option("--expect", callback=_sha256, metavar="SHA256", help="What --whole must come to.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Files at once. [default: one a processor]"
)
@quiet_option
@common
def checksum(
    data: Path,
    against: Path | None,
    whole: bool,
    expect: str | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute the sha256 of token files, and compare them with a list.

    DATA is a folder, of which the .bin and .idx files count, a file, or the prefix of a pair or of
    shards; with --against the folder in which the files of the list lie. Without, a list is printed
    that `sha256sum -c` takes.

    Ends with 4 if a file is missing, cannot be read, or has another checksum.
    """
    if whole and against is not None:
        raise click.UsageError("--whole and --against exclude each other")
    if expect is not None and not whole:
        raise click.UsageError("--expect is for --whole")
    if whole:
        good = _whole(data, expect, quiet, as_json)
    elif against is not None:
        good = _against(data, against, threads, quiet, as_json)
    else:
        good = _list(data, threads, quiet, as_json)
    if not good:
        raise click.exceptions.Exit(INCOMPLETE)


def _whole(data: Path, expect: str | None, quiet: bool, as_json: bool) -> bool:
    from pythia_fast.tokens.checksum import whole_checksum
    from pythia_fast.tokens.checksum_list import format_checksums

    with Bar("checksum", "B", on=not quiet) as progress:
        name, sha256 = whole_checksum(data, progress=progress)
    good = expect in (None, sha256)
    if as_json:
        expected = {} if expect is None else {"expected": expect, "ok": good}
        print_json({"name": name, "sha256": sha256, **expected})
    else:
        click.echo(format_checksums({name: sha256}), nl=False)
        if not good:
            click.echo(f"WRONG: {expect} was expected", err=True)
    return good


def _list(data: Path, threads: int | None, quiet: bool, as_json: bool) -> bool:
    from pythia_fast.tokens.checksum import checksums
    from pythia_fast.tokens.checksum_list import format_checksums

    with Bar("checksum", "B", on=not quiet) as progress:
        found = checksums(data, threads=threads, progress=progress)
    if as_json:
        print_json({"sha256": found})
    else:
        click.echo(format_checksums(found), nl=False)
    return True


def _against(folder: Path, against: Path, threads: int | None, quiet: bool, as_json: bool) -> bool:
    from pythia_fast.tokens.checksum import check, describe
    from pythia_fast.tokens.checksum_list import read_checksums

    expected = read_checksums(against)
    with Bar("checksum", "B", on=not quiet) as progress:
        checked = check(folder, expected, threads=threads, progress=progress)
    if as_json:
        print_json(
            {
                "ok": checked.ok,
                "sha256": checked.digests,
                "wrong": checked.wrong,
                "missing": checked.missing,
                "unreadable": checked.unreadable,
                "extra": checked.extra,
            }
        )
    else:
        for line in describe(checked, expected):
            click.echo(line)
    return checked.ok
