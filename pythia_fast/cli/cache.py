"""`pythia-fast cache ls` and `pythia-fast cache prune`."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import Command, Group, common, print_json
from pythia_fast.cli.options import size
from pythia_fast.quantities import counted, parse_bytes, sized
from pythia_fast.words import listed

if TYPE_CHECKING:
    from pythia_fast.store.entries import Entry

_KINDS = {"blob": "", "partial": "unfinished", "quarantine": "damaged"}

cache_dir_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    help="The folder that was given as cache_dir. [default: beside the Hub's own cache]",
)


@click.group(cls=Group, examples=("pythia-fast cache ls", "pythia-fast cache prune --keep 500GB"))
def cache() -> None:
    """Show or remove the checkpoint files that were downloaded.

    What huggingface_hub keeps in its own cache is not part of it: see `hf cache`.
    """


@cache.command(
    "ls", cls=Command, examples=("pythia-fast cache ls", "pythia-fast cache ls --model 12b --json")
)
@click.option("--model", help="Only the files of this model.")
@cache_dir_option
@common
def show(model: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """List the files with model, step, size, and which processes use them."""
    from pythia_fast.store.entries import entries
    from pythia_fast.store.store import CheckpointStore, default_root

    root = default_root(cache_dir)
    repo = _repo(model)
    found = [
        entry
        for entry in entries(CheckpointStore(root))
        if repo is None or any(use.repo == repo for use in entry.uses)
    ]
    total = sum(entry.nbytes for entry in found)
    if as_json:
        print_json({"path": str(root), "bytes": total, "files": [_record(each) for each in found]})
        return
    for line in _table(found):
        click.echo(line)
    in_use = sum(entry.nbytes for entry in found if entry.in_use_by)
    click.echo(
        f"{counted(len(found), 'file')}, {sized(total)}, of which {sized(in_use)} in use, in {root}"
    )


@cache.command(
    "prune",
    cls=Command,
    examples=(
        "pythia-fast cache prune --dry-run",
        "pythia-fast cache prune --keep 500GB",
        "pythia-fast cache prune --model 12b",
    ),
)
@click.option("--model", help="Only the files of this model.")
@click.option(
    "--keep",
    callback=partial(size, least_bytes=0),
    help="How much may stay, such as 500GB: what was used last. [default: 0]",
)
@click.option(
    "--all",
    "small_too",
    is_flag=True,
    help="Also configs and listings, without which nothing is opened offline.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@cache_dir_option
@common
def prune(
    model: str | None,
    keep: str | None,
    small_too: bool,
    dry_run: bool,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Remove downloaded files that no process uses.

    That is: checkpoints, unfinished downloads and damaged files. What you have put there yourself
    stays, and so does what a sweep works on.
    """
    from pythia_fast.store.entries import prune as remove
    from pythia_fast.store.store import CheckpointStore, default_root

    root = default_root(cache_dir)
    removed = remove(
        CheckpointStore(root),
        repo=_repo(model),
        keep_bytes=0 if keep is None else parse_bytes(keep, least_bytes=0),
        small_too=small_too,
        dry_run=dry_run,
    )
    total = sum(each.nbytes for each in removed)
    if as_json:
        files = [
            {"digest": each.digest, "kind": each.kind, "bytes": each.nbytes} for each in removed
        ]
        print_json({"path": str(root), "bytes": total, "dry_run": dry_run, "files": files})
        return
    would = "would be " if dry_run else ""
    click.echo(f"{counted(len(removed), 'file')} {would}removed, {sized(total)}, from {root}")


def _repo(model: str | None) -> str | None:
    """The repository of a model by its name. UnknownModelError."""
    if model is None:
        return None
    from pythia_fast.suite import spec

    return spec(model).repo


def _record(entry: "Entry") -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "digest": entry.digest,
        "bytes": entry.nbytes,
        "revisions": [
            {"repo": use.repo, "step": use.step, "commit": use.commit, "file": use.path}
            for use in entry.uses
        ],
        "downloaded": entry.ours,
        "in_use_by": list(entry.in_use_by),
        "last_used": entry.last_used,
    }


def _table(entries: Sequence["Entry"]) -> Iterator[str]:
    rows = [("model", "step", "file", "size", "last used", "")]
    for entry in entries:
        first = entry.uses[0] if entry.uses else None
        steps = (use.commit[:12] if use.step is None else use.step for use in entry.uses)
        remarks = [_KINDS[entry.kind], "" if entry.ours else "not downloaded by pythia-fast"]
        remarks += [f"in use by {', '.join(entry.in_use_by)}" if entry.in_use_by else ""]
        rows.append(
            (
                "" if first is None else first.repo,
                listed(steps, 1),
                entry.digest[:16] if first is None else first.path,
                sized(entry.nbytes),
                _when(entry.last_used),
                ", ".join(remark for remark in remarks if remark),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = [
            text.rjust(width) if column == 3 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
