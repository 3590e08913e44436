"""`pythia-fast study training-order`."""

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
    "training-order",
    cls=Command,
    examples=(
        "pythia-fast study training-order runs/70m runs/12b --figure order.pdf",
        "pythia-fast study training-order runs/12b --steps last --details blocks",
        "pythia-fast study training-order runs/demo --batch 4 --block 16 --json",
    ),
)
@runs_argument
@click.option(
    "--block",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Sequences in a block.",
)
@steps_option
@batch_option
@level_option
@details_option
@study_options
def training_order(
    runs: tuple[Path, ...],
    block: int,
    steps: str,
    batch: int | None,
    level: float,
    details: Path | None,
    figure: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """Whether the order of training decides what is memorized.

    The RUNs are folders of `pythia-fast sweep MODEL --metrics memorization` over consecutive
    sequences of the training data. Memorized sequences are counted in blocks, and the counts
    compared with a Poisson distribution.
    """
    from pythia_fast import analysis

    with clock("look at the runs"):
        study = analysis.training_order(
            open_runs(runs), block=block, steps=steps, batch=batch, level=level
        )
    tell(study, figure, table, as_json=as_json, details=details)
