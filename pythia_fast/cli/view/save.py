"""`--mode save`: rows as .npy files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.cli.frame import print_json
from pythia_fast.cli.view.selection import Selection
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset


def save_one(
    dataset: "TokenDataset", selection: Selection, out: Path, dtype: str | None, *, as_json: bool
) -> None:
    """All rows as one file."""
    from pythia_fast.tokens.passes.save import matrix_of, save_rows

    matrix = matrix_of(dataset, selection.rows, dtype)
    with Bar("save", "rows", len(selection.rows), on=True) as shown:
        for rows in save_rows(dataset, matrix, out):
            shown.advance(rows)
    shape = [len(selection.rows), matrix.width]
    if as_json:
        print_json(
            {
                "source": dataset.source,
                "selection": selection.as_json(),
                "path": str(out),
                "dtype": str(matrix.dtype),
                "shape": shape,
            }
        )
    else:
        click.echo(f"{out}: {matrix.dtype} {shape}")


def save_each(
    dataset: "TokenDataset", selection: Selection, folder: Path, dtype: str | None, *, as_json: bool
) -> None:
    """A file for each training step; those that are there are kept."""
    from pythia_fast.tokens.passes.save import save_steps

    steps = selection.steps or range(0)
    kept = 0
    try:
        with Bar("save", "steps", len(steps), on=True) as shown:
            for saved in save_steps(dataset, steps, folder, batch=selection.batch, dtype=dtype):
                kept += saved.kept
                shown.advance()
    except KeyboardInterrupt:
        click.echo("what is complete is kept: the same command goes on from there", err=True)
        raise
    if as_json:
        print_json(
            {
                "source": dataset.source,
                "selection": selection.as_json(),
                "path": str(folder),
                "written": len(steps) - kept,
                "kept": kept,
            }
        )
    else:
        click.echo(f"{folder}: {len(steps):,} files, {kept:,} of which were there already")
