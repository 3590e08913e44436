"""`pythia-fast demo`."""

from pathlib import Path

import click

from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json


@click.command(
    cls=Command,
    examples=(
        "pythia-fast demo",
        "pythia-fast demo --folder /tmp/demo --fresh",
    ),
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where everything is written.",
)
@click.option("--fresh", is_flag=True, help="Train anew, even if there is a demo in the folder.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long training may take; it then ends early, at a saved checkpoint.",
)
@common
def demo(folder: Path, fresh: bool, seconds: float, as_json: bool) -> None:
    """Watch a small model learn: about a minute, no network, no GPU.

    Trains a 2-layer GPT-NeoX on text that comes with Python, in which random texts are planted 0,
    1, 4, 16 and 64 times; saves its checkpoints as a suite; sweeps them; shows loss, perplexity and
    how much of what was planted is memorized. A second start finds what is there.

    Ends with 4 if what must come out does not.
    """
    from pythia_fast.demo import run_demo, told

    story = run_demo(
        folder, fresh=fresh, limit_s=seconds, say=lambda text: click.echo(text, err=True)
    )
    if as_json:
        print_json(story.to_dict())
    else:
        click.echo("\n" + told(story))
    if not story.kept:
        raise click.exceptions.Exit(INCOMPLETE)
