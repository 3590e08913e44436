"""`pythia-fast convert`."""

from pathlib import Path
from typing import Literal

import click

from pythia_fast.cli.frame import (
    INCOMPLETE,
    Command,
    common,
    failure_rows,
    print_json,
    tell_failures,
)
from pythia_fast.cli.options import (
    cache_dir_option,
    on_error_option,
    quiet_option,
    size,
    steps_option,
)
from pythia_fast.progress import Bar
from pythia_fast.quantities import counted


@click.command(
    cls=Command,
    examples=(
        "pythia-fast convert 70m pythia-70m --steps log",
        "pythia-fast convert my-run/checkpoints converted",
        "pythia-fast convert 12b pythia-12b --steps last --max-shard-size 5GB --disk-budget 60GB",
    ),
)
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@steps_option
@click.option(
    "--format",
    type=click.Choice(["safetensors", "torch"]),
    default="safetensors",
    show_default=True,
    help="model.safetensors, or pytorch_model.bin.",
)
@click.option(
    "--max-shard-size",
    callback=size,
    metavar="SIZE",
    help="Cut the weights into files of at most that size, such as 5GB; a larger tensor has a file "
    "of its own. "
    "[default: one file; 5GB for torch]",
)
@cache_dir_option
@click.option(
    "--disk-budget",
    callback=size,
    metavar="SIZE",
    help="What downloads may take, such as 500GB.",
)
@on_error_option
@quiet_option
@common
def convert(
    model: str,
    out: Path,
    steps: str,
    format: Literal["safetensors", "torch"],
    max_shard_size: str | None,
    cache_dir: Path | None,
    disk_budget: str | None,
    on_error: Literal["raise", "skip"],
    quiet: bool,
    as_json: bool,
) -> None:
    """Write checkpoints of MODEL into OUT, as stepN/ in the Hub's layout.

    MODEL is a model's name or a folder: stepN/ as on the Hub, or GPT-NeoX's own global_stepN/, the
    ranks of which are merged. Every weight keeps its bits. The same command goes on where an
    earlier one was stopped.

    Ends with 4 if steps failed.
    """
    from pythia_fast.series.convert import convert as run

    with Bar("convert", "steps", on=not quiet) as progress:
        done = run(
            model,
            out,
            steps,
            format=format,
            max_shard_size=max_shard_size,
            cache_dir=cache_dir,
            disk_budget=disk_budget,
            on_error=on_error,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "out": str(done.out),
                "steps": list(done.steps),
                "written": list(done.written),
                "written_bytes": done.written_bytes,
                "failures": failure_rows(done.failures),
            }
        )
    else:
        click.echo(done.out)
        already = len(done.steps) - len(done.written)
        remark = f", {already} were there already" if already else ""
        written = counted(len(done.written), "step")
        click.echo(f"{written} written, {done.written_bytes:,} bytes{remark}", err=True)
        tell_failures(done.failures)
    if done.failures:
        raise click.exceptions.Exit(INCOMPLETE)
