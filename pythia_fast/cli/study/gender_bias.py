"""`pythia-fast study gender-bias`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.cli.frame import Command
from pythia_fast.cli.study.frame import details_option, level_option, study_options, tell
from pythia_fast.progress import clock

if TYPE_CHECKING:
    from pythia_fast.plots import StepAxis


@click.command(
    "gender-bias",
    cls=Command,
    examples=(
        "pythia-fast study gender-bias --published pythia/evals --models 1.4b-deduped,6.9b-deduped "
        "--figure bias.pdf",
        "pythia-fast study gender-bias runs/bias-410m --table bias.csv --details effects",
    ),
)
@click.argument("evaluations", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "--published",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="The suite's published evaluations: its evals folder, or one of its folders.",
)
@click.option("--models", help="Only these base models, with commas.")
@click.option(
    "--steps-axis",
    type=click.Choice(["linear", "log"]),
    default="linear",
    show_default=True,
    help="The figure's axis.",
)
@level_option
@click.option(
    "--tasks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _tell_tasks(ctx) if asked else None,
    help="Print the folder of the WinoBias tasks, for `pythia-fast eval --include-path`.",
)
@details_option
@study_options
def gender_bias(
    evaluations: tuple[Path, ...],
    published: Path | None,
    models: str | None,
    steps_axis: "StepAxis",
    level: float,
    details: Path | None,
    figure: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """Gender bias by CrowS-Pairs and WinoBias, of base and intervened models over the steps.

    The RUNs are folders of `pythia-fast eval` with the tasks crows_pairs_english_gender and
    wino_bias, which the folder that --tasks prints defines. Intervened models are set against their
    base step by step: --details saves these effects, with p corrected for how many they are.
    """
    if not evaluations and published is None:
        raise click.UsageError("Give RUN folders, or --published.")
    from pythia_fast.analysis.gender import gender_bias as run
    from pythia_fast.evaluation import EvaluationResult

    results: list[object] = [EvaluationResult(path) for path in evaluations]
    if published is not None:
        from pythia_fast.analysis import published as read

        results.append(read(published))
    chosen = None if models is None else [name.strip() for name in models.split(",")]
    with clock("look at the runs"):
        study = run(results, models=chosen, level=level, steps_axis=steps_axis)
    tell(study, figure, table, as_json=as_json, details=details)


def _tell_tasks(ctx: click.Context) -> None:
    from pythia_fast.analysis.wino_bias import wino_bias_tasks

    click.echo(wino_bias_tasks())
    ctx.exit()
