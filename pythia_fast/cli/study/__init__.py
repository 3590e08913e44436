"""`pythia-fast study`: a command for each case study."""

import click

from pythia_fast.cli.frame import Group


@click.group(cls=Group, examples=("pythia-fast study training-order --help",))
def study() -> None:
    """From the numbers of runs to findings: a table, and a figure of it."""


_COMMANDS: tuple[click.Command, ...] = ()

for _command in _COMMANDS:
    study.add_command(_command)
