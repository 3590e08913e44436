"""`pythia-fast sweep`."""

import re
from collections.abc import Iterator, Mapping, Sequence
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
from pythia_fast.cli.options import (
    device_option,
    disk_budget_option,
    dtype_option,
    metrics_option,
    on_error_option,
    quiet_option,
    sequences_option,
    steps_option,
)

if TYPE_CHECKING:
    from pythia_fast.metrics import Metric
    from pythia_fast.runs import SweepResult

_STEPS_TOLD = 8  # of a remark, in its line


def _batch_tokens(_: click.Context, __: click.Parameter, value: str) -> int | str:
    """A positive number or "auto", as `sweep` takes it."""
    if value == "auto":
        return value
    if not re.fullmatch(r"[1-9]\d*", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is neither auto nor a positive number.")
    return int(value)


@click.command(
    cls=Command,
    examples=(
        "pythia-fast sweep 70m --steps log",
        "pythia-fast sweep 160m --steps 0,1000:144000:1000 --metrics perplexity,memorization",
        "pythia-fast sweep demo/suite --tokens demo/data/train --sequences 0:100 --out runs/demo",
        "pythia-fast sweep demo/suite --tokens demo/data/train --per-token --out runs/tokens",
    ),
)
@click.argument("model")
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
    help="The prefix of an .idx/.bin pair, or hub:owner/name for a data set of the Hub; with "
    "--tokenizer a text file, each line a sequence. Without: the model's own training data, of "
    "which the --sequences are fetched from the Hub.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, if --tokens is a text file.",
)
@sequences_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run folder. [default: one in the cache]"
)
@click.option("--no-resume", is_flag=True, help="Compute all anew, in a new run folder.")
@device_option
@dtype_option
@click.option(
    "--batch-tokens",
    callback=_batch_tokens,
    default="auto",
    show_default=True,
    help="How many tokens go through the model at once.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same bits for a sequence whatever is computed with it; slower.",
)
@click.option(
    "--cache-dir", type=click.Path(path_type=Path), help="Where downloads and such runs go."
)
@disk_budget_option
@on_error_option
@quiet_option
@common
def sweep(
    model: str,
    steps: str,
    metrics: str,
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
    quiet: bool,
    as_json: bool,
) -> None:
    """Ask the same questions of many checkpoints of MODEL.

    MODEL is a name of the suite (see `pythia-fast models`) or a folder that holds stepN/. What is
    computed is kept; the same command goes on where an earlier one was stopped.

    Ends with 4 if steps failed.
    """
    if tokenizer is not None and tokens is None:
        raise click.UsageError("--tokenizer is for a text file, which --tokens names")
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if per_token and "perplexity" not in names:
        raise click.UsageError("--per-token is for perplexity, which --metrics does not name")
    from pythia_fast.series import open_series
    from pythia_fast.suite import parse_steps

    # What is easily mistyped comes before the import of `runs`: torch alone takes a second.
    parse_steps(steps, open_series(model, cache_dir=cache_dir, disk_budget=disk_budget).steps)
    data = open_tokens(tokens, tokenizer, cache_dir)
    from pythia_fast import runs

    result = runs.sweep(
        model,
        steps,
        tokens=data,
        sequences=sequences,
        metrics=_metrics(names, per_token=per_token),
        out=out,
        resume=not no_resume,
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
        deterministic=deterministic,
        cache_dir=cache_dir,
        disk_budget=disk_budget,
        on_error=on_error,
        progress=not quiet,
    )
    if as_json:
        print_json(_document(result))
    else:
        for line in _table(result.table.to_pylist()):
            click.echo(line)
        tell_failures(result.failures)
        for remark, steps_of_it in _by_remark(result.remarks if quiet else {}).items():
            click.echo(f"known of step {steps_of_it}: {remark}", err=True)  # the progress said it
        click.echo(f"kept in {result.path}", err=True)
    if result.failures:
        raise click.exceptions.Exit(INCOMPLETE)


def _metrics(names: Sequence[str], *, per_token: bool) -> list["str | Metric"]:
    from pythia_fast.metrics import Perplexity

    return [
        Perplexity(per_token=True) if per_token and name == "perplexity" else name for name in names
    ]


def _document(result: "SweepResult") -> dict[str, Any]:
    return {
        "path": str(result.path),
        "rows": result.table.to_pylist(),
        "times": result.times.to_pylist(),
        "remarks": {str(step): list(remarks) for step, remarks in result.remarks.items()},
        "failures": failure_rows(result.failures),
    }


def _by_remark(remarks: Mapping[int, Sequence[str]]) -> dict[str, str]:
    """Each remark with the steps that it is about."""
    by_remark: dict[str, list[int]] = {}
    for step, of_step in remarks.items():
        for remark in of_step:
            by_remark.setdefault(remark, []).append(step)
    return {
        remark: ", ".join(map(str, steps[:_STEPS_TOLD])) + (", …" * (len(steps) > _STEPS_TOLD))
        for remark, steps in by_remark.items()
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line a step, a column for each metric's value, and one for the loss."""
    names = list(dict.fromkeys(row["metric"] for row in rows))
    by_step: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_step.setdefault(row["step"], {})[row["metric"]] = row
    heads = [
        head for name in names for head in ((name, "loss") if name == "perplexity" else [name])
    ]
    yield f"{'step':>8}" + "".join(f"  {head:>{_width(head)}}" for head in heads)
    for step, of_step in by_step.items():
        cells = []
        for name in names:
            row = of_step.get(name, {})
            cells.append(_number(row.get("value")))
            if name == "perplexity":
                cells.append(_number(row.get("loss")))
        line = f"{step:>8}"
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
