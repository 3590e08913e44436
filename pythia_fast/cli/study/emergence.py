"""`pythia-fast study emergence`."""

from pathlib import Path

import click

from pythia_fast.cli.frame import Command
from pythia_fast.cli.options import steps_option
from pythia_fast.cli.study.frame import (
    batch_option,
    details_option,
    level_option,
    open_runs,
    runs_argument,
    study_options,
    tell,
)
from pythia_fast.progress import clock


@click.command(
    cls=Command,
    examples=(
        "pythia-fast study emergence runs/70m --figure emergence.pdf",
        "pythia-fast study emergence runs/demo --batch 4 --measures loss --table effects.parquet",
    ),
)
@runs_argument
@click.option(
    "--measures", help="With commas: loss, score, memorized. [default: those that a RUN has]"
)
@steps_option
@batch_option
@click.option(
    "--bins",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Parts of the training data that the figure tells apart.",
)
@level_option
@details_option
@study_options
def emergence(
    runs: tuple[Path, ...],
    measures: str | None,
    steps: str,
    batch: int | None,
    bins: int,
    level: float,
    details: Path | None,
    figure: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """What seeing a sequence does to its loss and score.

    The RUNs are folders of `pythia-fast sweep` over a fixed set of the training data's sequences,
    of which some are met between the steps and some after the last one. How much more a sequence
    changes once it was seen than those that are unseen is the effect.
    """
    from pythia_fast import analysis

    with clock("look at the runs"):
        study = analysis.emergence(
            open_runs(runs),
            measures=None
            if measures is None
            else [name.strip() for name in measures.split(",") if name.strip()],
            steps=steps,
            batch=batch,
            bins=bins,
            level=level,
        )
    tell(study, figure, table, as_json=as_json, details=details)
