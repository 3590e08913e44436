"""`pythia-fast models`."""

import click

from pythia_fast.cli.frame import Command, common, print_json


@click.command(
    cls=Command,
    examples=(
        "pythia-fast models",
        "pythia-fast models 160m-seed3",
        "pythia-fast models 12b --json",
    ),
)
@click.argument("model", required=False)
@common
def models(model: str | None, as_json: bool) -> None:
    """List the models of the suite, or tell all that is known of one.

    MODEL is a name ("12b-deduped", "EleutherAI/pythia-70m", "160m-seed3", an old one such as
    "13b") or a folder of your own that holds stepN/, or global_stepN/ by GPT-NeoX.
    """
    from pythia_fast import suite

    if model is None:
        every = suite.models()
        if as_json:
            print_json([each.to_dict() for each in every])
        else:
            click.echo(suite.table(every))
        return
    from pythia_fast.series.sources import existing_folder

    if existing_folder(model) is not None:
        from pythia_fast.series import open_series

        spec = open_series(model).spec
    else:
        spec = suite.spec(model)
    if as_json:
        print_json(spec.to_dict())
    else:
        click.echo(suite.card(spec))
