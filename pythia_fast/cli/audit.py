"""`pythia-fast audit`."""

from pathlib import Path

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.options import cache_dir_option, quiet_option, size, steps_option


@click.command(
    cls=Command,
    examples=(
        "pythia-fast audit 2.8b",
        "pythia-fast audit 70m --deep --disk-budget 20GB",
        "pythia-fast audit my/suite --steps log --deep --json",
    ),
)
@click.argument("model")
@steps_option
@click.option(
    "--deep", is_flag=True, help="Read all weights too; of the Hub's models this downloads them."
)
@cache_dir_option
@click.option(
    "--disk-budget",
    callback=size,
    metavar="SIZE",
    help="What --deep may keep on the disk, such as 500GB.",
)
@quiet_option
@common
def audit(
    model: str,
    steps: str,
    deep: bool,
    cache_dir: Path | None,
    disk_budget: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Look for checkpoints of MODEL that are not what their name says.

    MODEL is a name of the suite (see `pythia-fast models`) or a folder that holds stepN/ or
    global_stepN/. By the files' hashes: missing steps, steps with the weights or a shard of
    another; of a folder by its configs and headers, too: steps that cannot be opened. With --deep
    by the weights: shapes, NaN, tensors shared between steps, and checkpoints out of place.

    Ends with 4 if anything was found that is not expected.
    """
    from pythia_fast.auditing import audit as run_audit

    report = run_audit(
        model,
        steps,
        deep=deep,
        cache_dir=cache_dir,
        disk_budget=disk_budget,
        progress=not quiet,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(str(report))
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)
