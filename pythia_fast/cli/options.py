"""Options that several commands share."""

import re
from pathlib import Path

import click

steps_option = click.option(
    "--steps",
    default="all",
    show_default=True,
    help="all, log, last, numbers, start:stop:stride (without stop), or several with commas.",
)
metrics_option = click.option(
    "--metrics",
    default="perplexity",
    show_default=True,
    help="With commas: perplexity, memorization (flags), memorization-score.",
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
    help="The most that downloaded checkpoints may take, such as 500GB. [default: what is free]",
)
on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="When a step fails: stop, or leave it out and go on.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "split-bf16"]),
    default="auto",
    show_default=True,
    help="What to compute in; auto: float16 on a GPU, split-bf16 on a CPU with AMX, else float32.",
)


def _sequences(_: click.Context, __: click.Parameter, value: str) -> int | slice | str:
    """A number, a slice "a:b", "seen" or "unseen", as `sweep` takes it."""
    if value in ("seen", "unseen"):
        return value
    if re.fullmatch(r"\d+", value, re.ASCII):
        return int(value)
    if re.fullmatch(r"\d*:\d*(:[1-9]\d*)?", value, re.ASCII):
        return slice(*(int(part) if part else None for part in value.split(":")))
    raise click.BadParameter(f"{value!r} is neither a number nor a:b nor seen nor unseen.")


sequences_option = click.option(
    "--sequences",
    callback=_sequences,
    default="512",
    show_default=True,
    help="How many sequences, or a:b, or those that a step has seen, or the unseen.",
)
