"""`pythia-fast study predictability`."""

from pathlib import Path

import click

from pythia_fast.cli.frame import Command
from pythia_fast.cli.study.frame import (
    batch_option,
    level_option,
    open_runs,
    study_options,
    tell,
)
from pythia_fast.progress import clock


@click.command(
    cls=Command,
    examples=(
        "pythia-fast study predictability runs/70m runs/1b --of runs/12b --first 23552000",
        "pythia-fast study predictability --of runs/12b --figure early.pdf --table early.csv",
    ),
)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@click.option(
    "--of",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="The run that is foretold.",
)
@click.option("--step", type=click.IntRange(min=0), help="Which of its steps. [default: its last]")
@click.option(
    "--steps", default="last", show_default=True, help="Which steps of the RUNs foretell it."
)
@click.option(
    "--earlier",
    default="all",
    show_default=True,
    help="Which earlier steps of its own foretell it; none for none.",
)
@click.option(
    "--first",
    type=click.IntRange(min=1),
    help="Count only the first sequences of the data, and checkpoints that have seen them all.",
)
@batch_option
@level_option
@study_options
def predictability(
    runs: tuple[Path, ...],
    target: Path,
    step: int | None,
    steps: str,
    earlier: str,
    first: int | None,
    batch: int | None,
    level: float,
    figure: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """How well small models and early checkpoints foretell what is memorized.

    The RUNs are folders of `pythia-fast sweep MODEL --metrics memorization` (or memorization-score)
    over the same sequences. Precision: the share of what they memorize that the target memorizes
    too; recall: the share of what the target memorizes that they do.
    """
    from pythia_fast import analysis

    with clock("look at the runs"):
        (aim,) = open_runs([target])
        study = analysis.predictability(
            open_runs(runs),
            aim,
            steps=steps,
            earlier=None if earlier == "none" else earlier,
            step=step,
            first=first,
            batch=batch,
            level=level,
        )
    tell(study, figure, table, as_json=as_json)
