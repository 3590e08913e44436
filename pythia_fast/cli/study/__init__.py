"""`pythia-fast study`: a command for each case study."""

import click

from pythia_fast.cli.frame import Group
from pythia_fast.cli.study.arithmetic import arithmetic
from pythia_fast.cli.study.emergence import emergence
from pythia_fast.cli.study.gender_bias import gender_bias
from pythia_fast.cli.study.predictability import predictability
from pythia_fast.cli.study.term_frequency import term_frequency
from pythia_fast.cli.study.training_order import training_order


@click.group(
    cls=Group,
    examples=(
        "pythia-fast study training-order runs/12b",
        "pythia-fast study emergence runs/70m",
    ),
)
def study() -> None:
    """From the numbers of runs to findings: a table, and a figure of it."""


_COMMANDS: tuple[click.Command, ...] = (
    *(training_order, predictability, emergence),
    *(gender_bias, term_frequency, arithmetic),
)

for _command in _COMMANDS:
    study.add_command(_command)
