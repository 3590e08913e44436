"""`pythia-fast eval`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_fast.cli.frame import (
    INCOMPLETE,
    Command,
    common,
    failure_rows,
    print_json,
    tell_failures,
)
from pythia_fast.cli.options import (
    cache_dir_option,
    device_option,
    disk_budget_option,
    dtype_option,
    on_error_option,
    quiet_option,
    steps_option,
)
from pythia_fast.progress import clock

if TYPE_CHECKING:
    from pythia_fast.evaluation import EvaluationResult

_NAME_WIDTH = 44


def _limit(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A whole number of documents, or a share of them."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number.") from None
    if not math.isfinite(number) or number <= 0:
        raise click.BadParameter(f"{value!r} is no positive number of documents.")
    return int(number) if number >= 1 and number == int(number) else number


@click.command(
    "eval",
    cls=Command,
    examples=(
        "pythia-fast eval 70m --steps log --tasks lambada_openai,piqa",
        "pythia-fast eval 410m --steps last --tasks suite --num-fewshot 5",
        "pythia-fast eval demo/suite --tasks my_task --include-path my_tasks --out runs/my_task",
        "pythia-fast eval --list-tasks | grep blimp",
    ),
)
@click.argument("model", required=False)
@steps_option
@click.option(
    "--tasks",
    help="With commas: names of lm-evaluation-harness, patterns such as 'blimp_*', or suite for "
    "the suite's eleven benchmarks.",
)
@click.option(
    "--num-fewshot",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many solved examples stand before each question.",
)
@click.option(
    "--limit",
    callback=_limit,
    help="Only so many documents of each task, or below 1 such a share of them; for trying out.",
)
@click.option(
    "--include-path",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A folder with task definitions of your own; may be given again.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder. [default: one in the cache]"
)
@click.option("--no-resume", is_flag=True, help="Compute all anew, in a new folder.")
@click.option("--log-samples", is_flag=True, help="Keep every request with its answer too.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, or its folder. [default: the model's own]",
)
@device_option
@dtype_option
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    help="How many tokens go through the model at once. [default: what it does best]",
)
@cache_dir_option
@disk_budget_option
@on_error_option
@click.option("--list-tasks", is_flag=True, help="Print the names of all tasks and end.")
@quiet_option
@common
def evaluate(
    model: str | None,
    steps: str,
    tasks: str | None,
    num_fewshot: int,
    limit: float | None,
    include_path: tuple[Path, ...],
    out: Path | None,
    no_resume: bool,
    log_samples: bool,
    tokenizer: Path | None,
    device: str | None,
    dtype: str,
    batch_tokens: int | None,
    cache_dir: Path | None,
    disk_budget: str | None,
    on_error: Any,
    list_tasks: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Evaluate checkpoints of MODEL with lm-evaluation-harness.

    MODEL is a name of the suite (see `pythia-fast models`) or a folder that holds stepN/ or
    global_stepN/. Results are kept step by step in the harness's own format; the same command goes
    on where an earlier one was stopped. The tasks' data are kept by `datasets` in its own cache,
    HF_DATASETS_CACHE.

    Ends with 4 if steps failed.
    """
    if list_tasks:
        _list(include_path, quiet, as_json)
        return
    if model is None or tasks is None:
        raise click.UsageError("a MODEL and --tasks are needed; --list-tasks shows what there is")
    from pythia_fast.series import open_series
    from pythia_fast.suite import parse_steps

    # What is easily mistyped comes before the imports that take seconds.
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    parse_steps(steps, series.steps, series=series.name)
    from pythia_fast import evaluation

    result = evaluation.evaluate(
        model,
        steps,
        tasks,
        num_fewshot=num_fewshot,
        limit=limit,
        include_path=include_path or None,
        out=out,
        resume=not no_resume,
        device=device,
        dtype=dtype,
        batch_tokens="auto" if batch_tokens is None else batch_tokens,
        cache_dir=cache_dir,
        disk_budget=disk_budget,
        tokenizer=tokenizer,
        log_samples=log_samples,
        on_error=on_error,
        progress=not quiet,
    )
    if as_json:
        print_json(_document(result))
    else:
        for line in _table(result.table.to_pylist()):
            click.echo(line)
        if quiet:
            tell_failures(result.failures)
        click.echo(f"kept in {result.path}", err=True)
    if result.failures:
        raise click.exceptions.Exit(INCOMPLETE)


def _list(include_path: tuple[Path, ...], quiet: bool, as_json: bool) -> None:
    with clock("read the harness's tasks", on=not quiet):
        from pythia_fast.evaluation import task_names

        names = task_names(include_path or None)
    if as_json:
        print_json(list(names))
    else:
        for name in names:
            click.echo(name)


def _document(result: "EvaluationResult") -> dict[str, Any]:
    return {
        "path": str(result.path),
        "rows": result.table.to_pylist(),
        "failures": failure_rows(result.failures),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each step, task and metric."""
    width = min(_NAME_WIDTH, max((len(row["task"]) for row in rows), default=4))
    names = max((len(row["metric"]) for row in rows), default=6)
    yield f"{'step':>8}  {'task':<{width}}  {'metric':<{names}}  {'value':>10}  {'stderr':>10}"
    for row in rows:
        remarks = [] if row["status"] == "ok" else [row["status"]]
        if row["duplicate_of"] is not None:
            remarks.append(f"same weights as {row['duplicate_of']}")
        line = f"{row['step']:>8}  {row['task']:<{width}}  {row['metric']:<{names}}"
        line += f"  {_number(row['value']):>10}  {_number(row['stderr']):>10}"
        yield f"{line}   {', '.join(remarks)}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
