"""`pythia-fast report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.cli.data import open_tokens
from pythia_fast.cli.folders import run_folders
from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.progress import clock

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset

_IDS = (".bin", ".idx", ".npy")


@click.command(
    cls=Command,
    examples=(
        "pythia-fast report runs/demo",
        "pythia-fast report runs/70m runs/160m runs/410m -o suite.html",
        "pythia-fast report runs/poems --tokens poems.txt --tokenizer tokenizer.json",
    ),
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The file; one that is there is replaced.",
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    help="What the sweep was given as --tokens. [default: where the run folder says it was]",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, or its folder. [default: the one beside the checkpoints]",
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where fetched tokens are.")
@common
def report(
    runs: tuple[Path, ...],
    output: Path,
    tokens: Path | None,
    tokenizer: Path | None,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Make one page of what the run folders RUN... hold, to open in a browser.

    A RUN is the folder of a sweep, or holds such folders, as `pythia-fast sweep` makes it for
    several models; evaluations in it are left out.

    The page needs no network and no other file. Losses by token are in it if the sweep was asked
    for them, by `pythia-fast sweep --per-token`.
    """
    from pythia_fast.report import write_report
    from pythia_fast.runs import SweepResult

    sweeps = _sweeps(runs)
    with clock("make the report"):
        results = [SweepResult(run) for run in sweeps]
        data = _tokens(tokens, tokenizer, cache_dir)
        path = write_report(results, output, tokens=data, tokenizer=tokenizer, cache_dir=cache_dir)
        missing = {str(result.path): len({gap.step for gap in result.gaps}) for result in results}
    if as_json:
        size_bytes = path.stat().st_size
        print_json({"path": str(path), "bytes": size_bytes, "missing_steps": missing})
        return
    for run, steps in missing.items():
        if steps:
            click.echo(f"{run} lacks {steps} {'step' if steps == 1 else 'steps'}", err=True)
    click.echo(str(path))


def _sweeps(paths: tuple[Path, ...]) -> list[Path]:
    """The run folders, but of a folder that holds several not those of evaluations."""
    from pythia_fast.runs.folder.parts import is_evaluation

    found = run_folders(paths)
    left_out = [run for run in found if run not in paths and is_evaluation(run)]
    sweeps = [run for run in found if run not in left_out]
    for run in left_out if sweeps else ():
        click.echo(f"{run} is of an evaluation, and left out", err=True)
    return sweeps or found


def _tokens(
    path: Path | None, tokenizer: Path | None, cache_dir: Path | None
) -> "TokenDataset | None":
    """A text file, of which each line is a sequence, or token data, which needs no tokenizer."""
    is_text = path is not None and path.is_file() and path.suffix not in _IDS
    return open_tokens(path, tokenizer if is_text else None, cache_dir)
