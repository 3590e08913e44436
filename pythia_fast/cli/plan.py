"""`pythia-fast plan`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pythia_fast.cli.frame import INCOMPLETE, Command, common, print_json
from pythia_fast.cli.metrics import load_metrics
from pythia_fast.cli.on_cluster import OnCluster, cluster_options, forecast_of, show
from pythia_fast.cli.options import (
    device_option,
    dtype_option,
    metrics_option,
    sequences_option,
    size,
    steps_option,
)
from pythia_fast.progress import clock
from pythia_fast.quantities import counted, duration, sized
from pythia_fast.words import listed

if TYPE_CHECKING:
    from pythia_fast.metrics import Metric
    from pythia_fast.runs.forecast.here import Forecast
    from pythia_fast.runs.forecast.planned import PlannedStep

_STEPS_TOLD = 8  # of an anomaly, in its line


@click.command(
    cls=Command,
    examples=(
        "pythia-fast plan 70m --steps log",
        "pythia-fast plan 12b --network 1GB/s --disk-budget 500GB",
        "pythia-fast plan 2.8b --sequences 4096 --metrics memorization --json",
        "pythia-fast plan all --steps all --sequences 512 --gpus 8 --network 1GB/s",
        "pythia-fast plan 70m 410m --workers 4 --network 100MB/s --compute 200GFLOP/s",
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@steps_option
@metrics_option
@click.option(
    "--tokens",
    help="The prefix of an .idx/.bin pair, the folder of its shards, or a .npy file. "
    "[default, and for hub:…: rows like those of Pythia's training data]",
)
@sequences_option
@device_option
@dtype_option
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where downloads would go.")
@click.option(
    "--disk-budget", callback=size, help="The most that downloads may take, such as 500GB."
)
@click.option(
    "--network",
    help="Bytes a second, such as 1GB/s, that all workers can download together. [default: "
    "measured with a first piece of what is needed; for a cluster it must be given]",
)
@cluster_options
@common
def plan(
    models: tuple[str, ...],
    steps: str,
    metrics: list[str],
    tokens: str | None,
    sequences: int | slice | Literal["seen", "unseen"],
    device: str | None,
    dtype: str,
    cache_dir: Path | None,
    disk_budget: str | None,
    network: str | None,
    on_cluster: OnCluster | None,
    as_json: bool,
) -> None:
    """Tell what a sweep of MODEL would take: downloads, disk, arithmetic, time.

    Every step is looked up: its commit and files, what is here already, what has the same weights
    as another step, what is known to be odd, and what is missing.

    With --gpus, --workers or one of the options behind them, with several models, or with "all",
    the suite's sixteen, the sweep is planned on paper and simulated for 1 to 1024 workers.

    Ends with 4 if something is missing; on this machine also if the disk has no room for the
    largest checkpoint, which of a cluster is not known.
    """
    own = load_metrics(metrics)
    if on_cluster is not None or len(models) > 1 or models[0] == "all":
        with clock("plan on paper"):
            found = forecast_of(
                *(models, steps, on_cluster or OnCluster()),
                tokens=tokens,
                sequences=sequences,
                metrics=own,
                device=device,
                dtype=dtype,
                cache_dir=cache_dir,
                disk_budget=disk_budget,
                network=network,
            )
        show(found, as_json=as_json)
        return
    _plan_one(
        *(models[0], steps, own, tokens, sequences, device, dtype, cache_dir),
        *(disk_budget, network),
        as_json=as_json,
    )


def _plan_one(
    model: str,
    steps: str,
    metrics: "list[str | Metric]",
    tokens: str | None,
    sequences: int | slice | Literal["seen", "unseen"],
    device: str | None,
    dtype: str,
    cache_dir: Path | None,
    disk_budget: str | None,
    network: str | None,
    *,
    as_json: bool,
) -> None:
    """On this machine, with every step looked up."""
    from pythia_fast.series import open_series
    from pythia_fast.suite import parse_steps

    # What is easily mistyped comes before the import of `runs`: torch alone takes a second.
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    parse_steps(steps, series.steps, series=series.name)

    from pythia_fast.runs.forecast import here

    with clock("look up and measure"):
        found = here.plan(
            model,
            steps,
            tokens=tokens,
            sequences=sequences,
            metrics=metrics,
            device=device,
            dtype=dtype,
            cache_dir=cache_dir,
            disk_budget=disk_budget,
            network=network,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        for line in (*_steps(found), "", *_totals(found)):
            click.echo(line)
    if found.missing:
        numbers = ", ".join(str(step.step) for step in found.missing)
        are = "is" if len(found.missing) == 1 else "are"
        of_steps = f"{len(found.missing)} of {counted(len(found.steps), 'step')}"
        click.echo(f"{of_steps} {are} missing: {numbers}", err=True)
    room = found.disk_bytes <= found.free_bytes
    if not room:
        click.echo(_no_room(found), err=True)
    if found.missing or not (room or found.fits):
        raise click.exceptions.Exit(INCOMPLETE)


def _no_room(found: "Forecast") -> str:
    if found.fits:
        return (
            f"the disk has {sized(found.free_bytes)} free of {sized(found.disk_bytes)} needed: "
            "used checkpoints will be removed to make room; free some, or give --cache-dir"
        )
    return (
        f"the disk has {sized(found.free_bytes)} free, and not even one checkpoint of "
        f"{sized(found.largest_bytes)} would fit: free some or give another --cache-dir"
    )


def _steps(found: "Forecast") -> Iterator[str]:
    """One line a step, and one for each thing that is known to be odd."""
    yield f"{found.model}, from {found.source}"
    yield f"{'step':>8}  {'commit':<12}  {'size':>9}  {'to come':>9}  files"
    told: dict[str, list[int]] = {}
    for step in found.steps:
        yield _line(step)
        for anomaly in step.anomalies:
            told.setdefault(anomaly, []).append(step.step)
    for anomaly, steps in told.items():
        yield f"known of step {listed(steps, _STEPS_TOLD)}: {anomaly}"


def _line(step: "PlannedStep") -> str:
    what = ", ".join(step.files)
    if step.missing is not None:
        what = f"MISSING: {step.missing}"
    elif step.duplicate_of is not None:
        what += f"   same weights as {step.duplicate_of}"
    coming = sized(step.download_bytes) if step.download_bytes else "-"
    commit = (step.commit or "")[:12]
    return f"{step.step:>8}  {commit:<12}  {sized(step.nbytes):>9}  {coming:>9}  {what}"


def _totals(found: "Forecast") -> Iterator[str]:
    loaded = sum(step.missing is None for step in found.steps)
    same = sum(step.duplicate_of is not None for step in found.steps)
    yield (
        f"{loaded} of {len(found.steps)} steps are there, {same} of them with the weights of "
        f"another; the largest takes {sized(found.largest_bytes)}"
    )
    about = "about " if found.makes_masks else ""
    yield (
        f"{about}{sized(found.download_bytes)} to download, "
        f"{sized(found.disk_bytes)} of disk needed, {sized(found.free_bytes)} free"
    )
    yield f"{found.flops:.3g} floating-point operations in {found.dtype} on {found.device}"
    rates = found.rates
    whose = "measured now" if rates.network_measured else "as given"
    network, read = rates.network_bytes_per_s, rates.read_bytes_per_s
    speed = {
        "download": f"{sized(network)}/s, {whose}" if network else "nothing to come",
        "verify": f"{sized(rates.sha256_bytes_per_s)}/s, sha256, measured now",
        "read": f"{sized(read)}/s, measured now" if read else "a rate that is not known",
        "compute": f"{rates.compute_flop_per_s / 1e9:,.1f} GFLOP/s, measured now",
    }
    for stage, elapsed_s in found.stage_s.items():
        mark = "  <- the bottleneck" if stage == found.bottleneck else ""
        yield f"{stage:>10}  {duration(elapsed_s):>12}  at {speed[stage]}{mark}"
    yield f"{'in all':>10}  {duration(found.total_s):>12}  (the stages overlap)"
