"""`--mode stats --function`: a user's function of each training step's batch."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from pythia_fast.cli.frame import INCOMPLETE, print_json
from pythia_fast.cli.view.selection import Selection
from pythia_fast.progress import Bar

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset


class _Of(TypedDict):
    """What each line is of."""

    function: str
    source: str
    batch: int


def run_function(
    dataset: "TokenDataset",
    selection: Selection,
    function: str,
    workers: int,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print or write one JSON line a step. Exit with 4 if steps failed, after all others."""
    from pythia_fast.named import find_here
    from pythia_fast.tokens.passes.map_steps import load_function, map_steps
    from pythia_fast.tokens.passes.step_lines import StepLines, step_line

    find_here()
    load_function(function)  # before a file is made
    of = _Of(function=function, source=_identity(dataset), batch=selection.batch)
    steps = list(selection.steps or ())
    failed: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        lines: StepLines | None = None
        if out is not None:
            lines = stack.enter_context(StepLines(out, **of))
            steps = [step for step in steps if step not in lines]
        results = map_steps(dataset, function, steps, batch=selection.batch, workers=workers)
        stack.enter_context(contextlib.closing(results))
        shown = stack.enter_context(Bar("stats", "steps", len(steps), on=True))
        try:
            for result in results:
                shown.advance()
                if result.values is None:
                    failed[result.step] = str(result.error)
                    shown.say(f"step {result.step} failed: {result.error}")
                elif lines is not None:
                    lines.add(result.step, result.values)
                else:
                    line = step_line(result.step, result.values, **of)
                    with shown.aside():
                        click.echo(line, nl=False)
        except KeyboardInterrupt:
            if lines is not None:
                click.echo("what is done is kept: the same command goes on from there", err=True)
            raise
        if lines is not None:
            lines.finish()
    if out is not None:
        every = len(selection.steps or ())
        if as_json:
            print_json(
                {
                    "source": dataset.source,
                    "selection": selection.as_json(),
                    "path": str(out),
                    "written": len(steps) - len(failed),
                    "kept": every - len(steps),
                    "failed": [{"step": step, "error": why} for step, why in failed.items()],
                }
            )
        else:
            click.echo(
                f"{out}: {every - len(failed):,} of {every:,} steps, "
                f"{every - len(steps):,} of which were there already"
            )
    if failed:
        raise click.exceptions.Exit(INCOMPLETE)


def _identity(dataset: "TokenDataset") -> str:
    """Where the data is and how many rows it has: what says cheaply that it is the same."""
    source = dataset.source if dataset.is_remote else str(Path(dataset.source).absolute())
    return f"{source}, {len(dataset)} rows"
