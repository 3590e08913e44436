"""`pythia-fast study arithmetic`: the questions of the term-frequency study, asked in a sweep."""

from pathlib import Path

import click

from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json
from pythia_fast.cli.options import device_option, dtype_option, quiet_option, steps_option


def _shots(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers with commas.") from None


@click.command(
    cls=Command,
    examples=(
        "pythia-fast study arithmetic 410m-deduped --steps 13000:143001:26000 --shots 16 "
        "--tokenizer tokenizer.json --out runs/arithmetic-410m",
    ),
)
@click.argument("model")
@steps_option
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), required=True, help="The tokenizer.json."
)
@click.option(
    "--shots",
    callback=_shots,
    default="0,2,4,8,16",
    show_default=True,
    help="Answered questions before each one.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder. [default: a cache's]")
@device_option
@dtype_option
@quiet_option
@common
def arithmetic(
    model: str,
    steps: str,
    tokenizer: Path,
    shots: tuple[int, ...],
    out: Path | None,
    device: str | None,
    dtype: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Ask the checkpoints of MODEL what 0 to 99 times, and plus, 1 to 50 is.

    The run goes on where it was stopped. `pythia-fast study term-frequency` takes its folder.
    """
    from pythia_fast.analysis.arithmetic import Questions
    from pythia_fast.runs import sweep

    questions = Questions(shots=shots)
    result = sweep(
        model,
        steps,
        tokens=questions.dataset(tokenizer),
        sequences=len(questions),
        metrics=questions.metric(tokenizer),
        out=out,
        device=device,
        dtype=dtype,
        on_error="skip",
        progress=not quiet,
    )
    there = result.table  # without one of its columns if no step is there
    rows = there.select(["model", "step", "accuracy", "answered"]).to_pylist() if there else []
    if as_json:
        print_json({"out": str(result.path), "rows": rows})
    else:
        for row in rows:
            click.echo(
                f"step {row['step']:>7,}: {row['accuracy']:.2%} right, {row['answered']:.2%} "
                "answered with a number"
            )
        click.echo(f"kept in {result.path}", err=True)
    for failure in result.failures:
        click.echo(f"step {failure.step:,} failed: {failure.error}", err=True)
    if result.failures:
        raise click.exceptions.Exit(INCOMPLETE)
