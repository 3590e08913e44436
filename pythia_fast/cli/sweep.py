"""`pythia-fast sweep`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pythia_fast.cli.data import open_tokens
from pythia_fast.cli.frame import (
    INCOMPLETE,
    Command,
    common,
    failure_rows,
    print_json,
    tell_failures,
)
from pythia_fast.cli.metrics import load_metrics
from pythia_fast.cli.options import (
    device_option,
    disk_budget_option,
    dtype_option,
    engine_option,
    metrics_option,
    number_or_auto,
    on_error_option,
    quiet_option,
    sequences_option,
    steps_option,
    worker_cpus_option,
    worker_gpus_option,
    worker_option,
    workers_option,
)
from pythia_fast.words import listed

if TYPE_CHECKING:
    from pythia_fast.runs import SweepResult

_STEPS_TOLD = 8  # of a remark, in its line


@click.command(
    cls=Command,
    examples=(
        "pythia-fast sweep 70m --steps log",
        "pythia-fast sweep 70m 410m 1b --steps log --out runs/scale",
        "pythia-fast sweep 160m --steps 0,1000:144000:1000 --metrics perplexity,memorization",
        "pythia-fast sweep demo/suite --tokens demo/data/train --sequences 0:100 --out runs/demo",
        "pythia-fast sweep demo/suite --tokens demo/data/train --metrics perplexity,mine.py:TopOne",
        "pythia-fast sweep demo/suite --tokens demo/data/train --per-token --out runs/tokens",
        "pythia-fast sweep 1b --steps log --out runs/1b --worker 3/16",
        "pythia-fast sweep 12b --engine ray --workers 8 --out runs/12b",
    ),
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@steps_option
@metrics_option
@click.option(
    "--per-token",
    is_flag=True,
    help="Keep the loss of every token too, four bytes each, as `pythia-fast report` shows it.",
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    help="The prefix of an .idx/.bin pair, the folder of its shards, a .npy file of integers "
    "[rows, T], or hub:owner/name for a data set of the Hub; with --tokenizer a text file, each "
    "line a sequence. "
    "Without: the model's own training data, of which the --sequences are fetched from the Hub.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, or its folder, if --tokens is a text file.",
)
@sequences_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run folder; of several models that of theirs. [default: in the cache]",
)
@click.option("--no-resume", is_flag=True, help="Compute all anew, in a new run folder.")
@device_option
@dtype_option
@click.option(
    "--batch-tokens",
    callback=number_or_auto,
    default="auto",
    show_default=True,
    help="How many tokens go through the model at once.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same bits for a sequence whatever is computed with it; slower where torch computes.",
)
@click.option(
    "--cache-dir", type=click.Path(path_type=Path), help="Where downloads and such runs go."
)
@disk_budget_option
@on_error_option
@worker_option
@engine_option
@workers_option
@worker_cpus_option
@worker_gpus_option
@quiet_option
@common
def sweep(
    models: tuple[str, ...],
    steps: str,
    metrics: list[str],
    per_token: bool,
    tokens: Path | None,
    tokenizer: Path | None,
    sequences: int | slice | Literal["seen", "unseen"],
    out: Path | None,
    no_resume: bool,
    device: str | None,
    dtype: str,
    batch_tokens: int | Literal["auto"],
    deterministic: bool,
    cache_dir: Path | None,
    disk_budget: str | None,
    on_error: Literal["raise", "skip"],
    worker: str | None,
    engine: Literal["local", "ray"],
    workers: int | Literal["auto"] | None,
    worker_cpus: float | None,
    worker_gpus: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Ask the same questions of many checkpoints of each MODEL.

    MODEL is a name of the suite (see `pythia-fast models`), a folder that holds stepN/ (or
    global_stepN/ by GPT-NeoX), or all: the suite's sixteen. What is computed is kept; the same
    command goes on where an earlier one was stopped. Several models are computed one after the
    other, each into a run folder of its own. With --engine ray the workers of a cluster compute:
    that of RAY_ADDRESS, one that runs on this machine, or a new one here.

    Ends with 4 if steps failed.
    """
    if tokenizer is not None and tokens is None:
        raise click.UsageError("--tokenizer is for a text file, which --tokens names")
    if engine == "local" and (workers, worker_cpus, worker_gpus) != (None, None, None):
        raise click.UsageError("--workers, --worker-cpus and --worker-gpus are for --engine ray")
    if per_token and "perplexity" not in metrics:
        raise click.UsageError("--per-token is for perplexity, which --metrics does not name")
    from pythia_fast.series import names_of, open_series
    from pythia_fast.suite import parse_steps

    # What is easily mistyped comes before the import of `runs`: torch alone takes a second.
    model = models[0] if len(models) == 1 else list(models)
    for name in names_of(model)[0]:
        series = open_series(name, cache_dir=cache_dir, disk_budget=disk_budget)
        parse_steps(steps, series.steps, series=series.name)
    own = load_metrics(metrics, per_token=per_token, for_ray=engine == "ray")
    data = open_tokens(tokens, tokenizer, cache_dir)
    from pythia_fast import runs
    from pythia_fast.runs.workers import Workers

    # Ray says on standard output what has become of workers, and that is the results' place.
    elsewhere = redirect_stdout(sys.stderr) if engine == "ray" else nullcontext()
    with elsewhere:
        result = runs.sweep(
            model,
            steps,
            tokens=data,
            sequences=sequences,
            metrics=own,
            out=out,
            resume=not no_resume,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            deterministic=deterministic,
            cache_dir=cache_dir,
            disk_budget=disk_budget,
            on_error=on_error,
            worker=worker,
            engine=engine,
            workers=None
            if engine == "local"
            else Workers(count=workers or "auto", num_cpus=worker_cpus, num_gpus=worker_gpus),
            progress=not quiet,
        )
    if isinstance(result, runs.SweepResults):
        several, results = True, list(result.values())
    else:
        several, results = False, [result]
    if as_json:
        print_json(_documents(result.path, results) if several else _document(results[0]))
    else:
        for line in _table(result.table.to_pylist(), several=several):
            click.echo(line)
        for each in results:
            if quiet:
                _tell(each, f"{each.model}: " if several else "")
        for kept in [result.path] if result.path else [each.path for each in results]:
            click.echo(f"kept in {kept}", err=True)
    if any(each.failures for each in results):
        raise click.exceptions.Exit(INCOMPLETE)


def _document(result: "SweepResult") -> dict[str, Any]:
    return {
        "path": str(result.path),
        "rows": result.table.to_pylist(),
        "times": result.times.to_pylist(),
        "remarks": {str(step): list(remarks) for step, remarks in result.remarks.items()},
        "failures": failure_rows(result.failures),
    }


def _tell(result: "SweepResult", whose: str) -> None:
    """What else the progress says: what failed and what is known of steps; `whose` is first."""
    tell_failures(result.failures, whose)
    for remark, steps in _by_remark(result.remarks).items():
        click.echo(f"{whose}known of step {steps}: {remark}", err=True)


def _documents(path: Path | None, results: "Sequence[SweepResult]") -> dict[str, Any]:
    """Of several models, each under its name."""
    return {
        "path": None if path is None else str(path),
        "models": {each.model: _document(each) for each in results},
    }


def _by_remark(remarks: Mapping[int, Sequence[str]]) -> dict[str, str]:
    """Each remark with the steps that it is about."""
    by_remark: dict[str, list[int]] = {}
    for step, of_step in remarks.items():
        for remark in of_step:
            by_remark.setdefault(remark, []).append(step)
    return {remark: listed(steps, _STEPS_TOLD) for remark, steps in by_remark.items()}


def _table(rows: Sequence[Mapping[str, Any]], *, several: bool) -> Iterator[str]:
    """One line a step, a column for each metric's value, and one for the loss.

    Of `several` models each line begins with the model's name.
    """
    names = list(dict.fromkeys(row["metric"] for row in rows))
    by_step: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_step.setdefault((row["model"], row["step"]), {})[row["metric"]] = row
    heads = [
        head for name in names for head in ((name, "loss") if name == "perplexity" else [name])
    ]
    width = max(map(len, ("model", *(model for model, _ in by_step))))
    first = f"{'model':<{width}}  " if several else ""
    yield f"{first}{'step':>8}" + "".join(f"  {head:>{_width(head)}}" for head in heads)
    for (model, step), of_step in by_step.items():
        cells = []
        for name in names:
            row = of_step.get(name, {})
            cells.append(_number(row.get("value")))
            if name == "perplexity":
                cells.append(_number(row.get("loss")))
        line = f"{model:<{width}}  " * several + f"{step:>8}"
        for head, cell in zip(heads, cells, strict=True):
            line += f"  {cell:>{_width(head)}}"
        yield (line + _remarks(of_step.values())).rstrip()


def _remarks(rows: Any) -> str:
    remarks = {f"same weights as {row['duplicate_of']}" for row in rows if _twin(row) is not None}
    remarks |= {str(row["status"]) for row in rows if row["status"] != "ok"}
    return f"   {', '.join(sorted(remarks))}" if remarks else ""


def _twin(row: Mapping[str, Any]) -> Any:
    return row.get("duplicate_of")


def _width(head: str) -> int:
    return max(10, len(head))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
