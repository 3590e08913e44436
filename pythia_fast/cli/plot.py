"""`pythia-fast plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pythia_fast.cli.folders import run_folders
from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.progress import clock
from pythia_fast.words import listed

if TYPE_CHECKING:
    from pythia_fast.evaluation.results import EvaluationResult
    from pythia_fast.plots import Line
    from pythia_fast.runs import SweepResult

_GAPS_TOLD = 8  # steps in one line


def _level(_: click.Context, __: click.Parameter, value: str) -> float | None:
    """A number between 0 and 1, or none."""
    if value == "none":
        return None
    try:
        level = float(value)
    except ValueError:
        level = 0.0
    if not 0 < level < 1:
        raise click.BadParameter(f"{value!r} is neither none nor between 0 and 1.")
    return level


@click.command(
    cls=Command,
    examples=(
        "pythia-fast plot runs/70m -o 70m.pdf",
        "pythia-fast plot runs/70m runs/160m --metric memorization --steps-axis linear -o m.svg",
        "pythia-fast plot runs/scale -o scale.pdf",
        "pythia-fast plot evals/70m --metric sciq:acc --level 0.9 -o sciq.png",
    ),
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--metric",
    help="Of a sweep its name; of an evaluation task:metric, or the task. [default: the first]",
)
@click.option(
    "--steps-axis",
    type=click.Choice(["log", "linear"]),
    default="log",
    show_default=True,
    help="The axis of the steps; log has room for step 0.",
)
@click.option(
    "--level",
    callback=_level,
    default="0.95",
    show_default=True,
    help="Of the confidence bands, or none.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .pdf, .png or .svg.",
)
@click.option("--dpi", type=click.FloatRange(20, 1200), default=300, show_default=True)
@common
def plot(
    runs: tuple[Path, ...],
    metric: str | None,
    steps_axis: Literal["log", "linear"],
    level: float | None,
    output: Path,
    dpi: float,
    as_json: bool,
) -> None:
    """Draw the learning curves of one or more runs, of sweeps or of evaluations.

    Each RUN is the folder of one, or one that holds such folders, as `pythia-fast sweep` makes it
    for several models. Steps that are not complete are marked on the axis, and no line
    leads across them.
    """
    from pythia_fast.plots.saving import check_figure_path

    target = check_figure_path(output)  # before torch is loaded and anything is read
    from pythia_fast.plots import curves, save_figure

    folders = run_folders(runs)
    with clock("draw the runs"):
        results = [_open(path) for path in folders]
        name = _name(results, metric)
        lines = named(folders, [_curve(result, name, level) for result in results])
        label = name if _is_sweep(results[0]) else ": ".join(name.split(":", 1))
        saved = save_figure(curves(lines, label, steps=steps_axis), target, dpi=dpi)
    if as_json:
        print_json({"path": str(saved), "metric": name, "lines": [_document(x) for x in lines]})
    for line in lines:
        if line.gaps:
            shown = listed(line.gaps, _GAPS_TOLD)
            click.echo(f"{line.label}: incomplete at step {shown}", err=True)
    click.echo(f"kept in {saved}", err=True)


def named(paths: Sequence[Path], lines: "Sequence[Line]") -> "list[Line]":
    """The lines, those of the same model told apart by their folders' names, or whole paths."""
    from dataclasses import replace

    labels = [line.label for line in lines]
    for added in ([path.name for path in paths], [str(path) for path in paths]):
        if len(set(labels)) == len(labels):
            break
        labels = [
            f"{line.label} ({name})" if labels.count(label) > 1 else label
            for line, label, name in zip(lines, labels, added, strict=True)
        ]
    return [replace(line, label=label) for line, label in zip(lines, labels, strict=True)]


def _open(path: Path) -> "SweepResult | EvaluationResult":
    """The results in a folder, by what its run.json says that it is."""
    from pythia_fast.cache import expanded
    from pythia_fast.evaluation.results import EvaluationResult
    from pythia_fast.runs import SweepResult
    from pythia_fast.runs.folder.parts import is_evaluation

    return EvaluationResult(path) if is_evaluation(expanded(path)) else SweepResult(path)


def _is_sweep(result: "SweepResult | EvaluationResult") -> bool:
    from pythia_fast.runs import SweepResult

    return isinstance(result, SweepResult)


def _name(results: "Sequence[SweepResult | EvaluationResult]", metric: str | None) -> str:
    """The metric of all of them. ArgumentError if sweeps and evaluations are mixed."""
    from pythia_fast.errors import ArgumentError
    from pythia_fast.runs import SweepResult

    first = results[0]
    if other := [result for result in results if type(result) is not type(first)]:
        sweep, evaluation = sorted((first, other[0]), key=_is_sweep, reverse=True)
        raise ArgumentError(
            f"sweeps ({sweep.path}) and evaluations ({evaluation.path}) measure different things: "
            "draw them apart"
        )
    if isinstance(first, SweepResult):
        return first.chosen_metric(metric)
    task, _, of_task = (metric or "").partition(":")
    some = next((result for result in results if len(result)), first)
    assert not isinstance(some, SweepResult)
    return ":".join(some.chosen(task or None, of_task or None))


def _curve(result: "SweepResult | EvaluationResult", name: str, level: float | None) -> "Line":
    from pythia_fast.runs import SweepResult

    if isinstance(result, SweepResult):
        return result.curve(name, level=level)
    task, _, metric = name.partition(":")
    return result.curve(task, metric, level=level)


def _document(line: "Line") -> dict[str, Any]:
    return {
        "label": line.label,
        "steps": list(line.steps),
        "values": list(line.values),
        "low": list(line.low or ()),
        "high": list(line.high or ()),
        "gaps": list(line.gaps),
    }
