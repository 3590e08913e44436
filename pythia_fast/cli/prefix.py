"""Options that say what the names of new files begin with."""

import click


def prefix(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The text as it is: a Path would make "." of an empty one, and lose a / at the end."""
    if value == "":
        raise click.BadParameter("it is empty: give what the files' names begin with.")
    return value
