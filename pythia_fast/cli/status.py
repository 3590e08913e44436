"""`pythia-fast status`."""

from pathlib import Path

import click

from pythia_fast.cli.folders import run_folders
from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json


@click.command(
    cls=Command,
    examples=(
        "pythia-fast status runs/70m",
        "pythia-fast status runs",
        "pythia-fast status runs/70m runs/410m --json",
    ),
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def status(runs: tuple[Path, ...], as_json: bool) -> None:
    """Tell how far the run folders RUN... are, and who works on them.

    A RUN is the folder of a sweep or of an evaluation, or one that holds such folders. Nothing is
    written.

    Ends with 4 unless all that was asked for is done.
    """
    from pythia_fast.runs.status import status as status_of

    found = [status_of(folder) for folder in dict.fromkeys(run_folders(runs))]
    if as_json:
        print_json({"runs": [each.to_dict() for each in found]})
    else:
        for each in found:
            click.echo(str(each))
    if not all(each.complete for each in found):
        raise click.exceptions.Exit(INCOMPLETE)
