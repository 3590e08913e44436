"""Options that several commands share."""

import re
from pathlib import Path
from typing import Any

import click

from pythia_fast.errors import ArgumentError
from pythia_fast.quantities import parse_bytes


def _worker(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A share such as "3/16", or "slurm"; Slurm's variables are not looked at here."""
    if value is None or value == "slurm":
        return value
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a share such as 3/16 nor slurm.")
    index, count = map(int, match.groups())
    if not 1 <= index <= count:
        raise click.BadParameter(f"there is no share {value}: the first is 1, the last {count}.")
    return value


def _sequences(_: click.Context, __: click.Parameter, value: str) -> int | slice | str:
    """A number, a slice "a:b", "seen" or "unseen", as `sweep` takes it."""
    if value in ("seen", "unseen"):
        return value
    if re.fullmatch(r"\d+", value, re.ASCII):
        return int(value)
    if re.fullmatch(r"\d*:\d*(:[1-9]\d*)?", value, re.ASCII):
        return slice(*(int(part) if part else None for part in value.split(":")))
    raise click.BadParameter(f"{value!r} is neither a number nor a:b nor seen nor unseen.")


def _steps(_: click.Context, __: click.Parameter, value: str) -> str:
    """A choice of steps, of which it is not known yet whether they are there."""
    from pythia_fast.suite.steps import check_steps

    try:
        check_steps(value)
    except ArgumentError as error:
        raise click.BadParameter(f"{error}.") from None
    return value


def size(
    _: click.Context, __: click.Parameter, value: str | None, *, least_bytes: int = 1
) -> str | None:
    """A number of bytes such as 500GB."""
    if value is not None:
        try:
            parse_bytes(value, least_bytes=least_bytes)
        except ArgumentError as error:
            raise click.BadParameter(f"{error}.") from None
    return value


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in value.split(",") if name.strip()]


def _metric_names(*arguments: Any) -> list[str]:
    return [name if ":" in name else name.lower() for name in _names(*arguments)]


def number_or_auto(_: click.Context, __: click.Parameter, value: str | None) -> int | str | None:
    """A positive number or "auto", as `sweep` takes it."""
    if value is None or value == "auto":
        return value
    if not re.fullmatch(r"[1-9]\d*", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is neither auto nor a positive number.")
    return int(value)


steps_option = click.option(
    "--steps",
    callback=_steps,
    default="all",
    show_default=True,
    help="all, log, last, numbers, start:stop:stride (without stop), or several with commas.",
)
metrics_option = click.option(
    "--metrics",
    callback=_metric_names,
    default="perplexity",
    show_default=True,
    help="With commas: perplexity, memorization (flags), memorization-score, and metrics of your "
    "own as FILE.py:NAME or MODULE:NAME, a class or an object.",
)
device_option = click.option(
    "--device", help="cpu, cuda, cuda:1, … [default: a GPU if there is one]"
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
cache_dir_option = click.option(
    "--cache-dir", type=click.Path(path_type=Path), help="Where downloads go."
)
disk_budget_option = click.option(
    "--disk-budget",
    callback=size,
    help="The most that downloaded checkpoints may take, such as 500GB. [default: what is free]",
)
on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="When a step fails: stop, or leave it out and go on.",
)
worker_option = click.option(
    "--worker",
    callback=_worker,
    help="Do a part of the steps: 3/16 the third of sixteen, slurm that of this array task.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "split-bf16"]),
    default="auto",
    show_default=True,
    help="What to compute in; auto: float16 on a GPU, split-bf16 on a CPU with AMX, else float32.",
)
sequences_option = click.option(
    "--sequences",
    callback=_sequences,
    default="512",
    show_default=True,
    help="How many sequences, or a:b, or every n-th as a:b:n; or those that a step has seen, or "
    "the unseen, which is known of the suite's own order.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who computes: this process, or the workers of a Ray cluster (extra: ray).",
)
workers_option = click.option(
    "--workers",
    callback=number_or_auto,
    help="Of --engine ray: how many. [default: auto: one for each GPU, or each machine's CPUs]",
)
worker_cpus_option = click.option(
    "--worker-cpus", type=click.FloatRange(min=0), help="CPUs of each worker, and its threads."
)
worker_gpus_option = click.option(
    "--worker-gpus",
    type=click.FloatRange(min=0),
    help="GPUs of each worker, also a part of one. [default: 1 where there are any]",
)
