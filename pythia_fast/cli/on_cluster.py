"""What `pythia-fast plan` says of a sweep on a cluster, and the options for that."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from pythia_fast.cli.frame import INCOMPLETE, print_json
from pythia_fast.quantities import duration, sized

if TYPE_CHECKING:
    from pythia_fast.metrics import Metric
    from pythia_fast.runs.forecast.cluster.planned import ClusterForecast

F = TypeVar("F", bound=Callable[..., Any])

_COUNT = click.IntRange(min=1)
_MUCH_DATA_BYTES = 10**9  # less than that is soon there


@dataclass(frozen=True, slots=True)
class OnCluster:
    """The options of a cluster; None is what was not given."""

    gpus: int | None = None
    workers: int | None = None
    workers_per_node: int | None = None
    node_network: str | None = None
    compute: str | None = None
    read: str | None = None
    verify: str | None = None


def cluster_options(command: F) -> F:
    """Add them; the command gets them as `on_cluster`, which is None if there is none of them."""

    @wraps(command)
    def with_cluster(**given: Any) -> Any:
        names = OnCluster.__dataclass_fields__
        found = OnCluster(**{name: given.pop(name) for name in names})
        if found.gpus is not None and found.workers is not None:
            raise click.UsageError("--gpus is a number of workers with a GPU each: leave --workers")
        device = given.get("device")
        if found.gpus is not None and device is not None and not device.startswith("cuda"):
            raise click.UsageError(
                f"--gpus plans for GPUs, not for --device {device}: leave one of them, or say "
                "--workers"
            )
        return command(on_cluster=None if found == OnCluster() else found, **given)

    options = (
        click.option(
            "--gpus", type=_COUNT, help="Plan for a cluster: so many workers, a GPU each."
        ),
        click.option("--workers", type=_COUNT, help="The same with what --device says."),
        click.option(
            "--workers-per-node",
            type=_COUNT,
            help="How many share a machine's network and disk. [default: 8 with GPUs, else 1]",
        ),
        click.option("--node-network", help="Bytes a second of one machine, such as 3GB/s."),
        click.option(
            "--compute",
            help="Operations a second of a worker, such as 400TFLOP/s. [default: measured here; of "
            "a GPU, where there is none here, 396TFLOP/s]",
        ),
        click.option(
            "--read",
            help="From a machine's disk, such as 2GB/s. [default: measured here; of machines with "
            "GPUs, where there are none here, without a limit]",
        ),
        click.option(
            "--verify", help="sha256 on one core, such as 1.5GB/s. [default: measured here]"
        ),
    )
    decorated: Any = with_cluster
    for option in reversed(options):
        decorated = option(decorated)
    result: F = decorated
    return result


def forecast_of(
    models: Sequence[str],
    steps: str,
    cluster: OnCluster,
    *,
    tokens: str | None,
    sequences: int | slice | Literal["seen", "unseen"],
    metrics: "Sequence[str | Metric]",
    device: str | None,
    dtype: str,
    cache_dir: Path | None,
    disk_budget: str | None,
    network: str | None,
) -> "ClusterForecast":
    """The forecast that the options ask for."""
    from pythia_fast.runs.forecast.cluster.forecast import plan_cluster

    return plan_cluster(
        models,
        steps,
        tokens=tokens,
        sequences=sequences,
        metrics=metrics,
        workers=cluster.gpus or cluster.workers or 1,
        workers_per_node=cluster.workers_per_node,
        dtype=dtype,
        device="cuda" if cluster.gpus and device is None else device,
        network=network,
        node_network=cluster.node_network,
        compute=cluster.compute,
        read=cluster.read,
        verify=cluster.verify,
        disk_budget=disk_budget,
        cache_dir=cache_dir,
    )


def show(found: "ClusterForecast", *, as_json: bool) -> None:
    """As lines or as JSON. Ends with 4 if something is missing."""
    if as_json:
        print_json(found.to_dict())
    else:
        for line in (*_models(found), "", *_rates(found), "", *_curve(found), "", *_words(found)):
            click.echo(line)
    for model in found.models:
        for step, reason in model.reasons.items():
            click.echo(f"{model.name}: step {step} is missing: {reason}", err=True)
    if found.missing:
        raise click.exceptions.Exit(INCOMPLETE)


def _models(found: "ClusterForecast") -> Iterator[str]:
    yield f"{'model':<16}  {'steps':>5}  {'loads':>5}  {'to come':>9}  {'operations':>10}"
    for model in found.models:
        coming = sized(model.download_bytes) if model.download_bytes else "-"
        yield (
            f"{model.name:<16}  {model.steps:>5}  {model.loads:>5}  {coming:>9}  "
            f"{model.flops:>10.3g}"
        )
    yield (
        f"{'in all':<16}  {sum(model.steps for model in found.models):>5}  "
        f"{sum(model.loads for model in found.models):>5}  {sized(found.download_bytes):>9}  "
        f"{found.flops:>10.3g}   in {found.dtype} on {found.device}"
    )


def _rates(found: "ClusterForecast") -> Iterator[str]:
    rates = sorted({model.compute_flop_per_s for model in found.models})
    span = " to ".join(f"{rate / 1e12:.3g}" for rate in dict.fromkeys((rates[0], rates[-1])))
    assumed = found.compute_source == "assumed"
    why = ": there is no GPU here to measure; --compute gives a better one" if assumed else ""
    yield f"{'compute':>12}  {span} TFLOP/s for a worker, {found.compute_source}{why}"
    for name, rate in found.rates.items():
        if rate.value is not None:
            for_whom = f"for {rate.of}, {rate.source}"
            one = " (one core here)" if name == "verify" and rate.source == "assumed" else ""
            yield f"{name.replace('_', ' '):>12}  {sized(rate.value)}/s {for_whom}{one}"
    read = found.rates["read"]
    if read.value is None:
        here = "nothing here could be measured"
        why = "the disks are not here to measure" if read.source == "assumed" else here
        yield f"{'read':>12}  without a limit: {why}; --read gives one"


def _curve(found: "ClusterForecast") -> Iterator[str]:
    yield (
        f"{'workers':>7}  {'nodes':>5}  {'time':>12}  {'speed-up':>8}  {'efficiency':>10}  "
        f"{'worker-hours':>12}  bottleneck"
    )
    rows = {row.workers: row for row in (*found.curve, found.asked)}
    stops = found.stops_helping
    for workers, row in sorted(rows.items()):
        mark = "  <- asked for" if workers == found.asked.workers else ""
        mark += "  <- more help little" if stops is not None and workers == stops.workers else ""
        yield (
            f"{workers:>7}  {row.nodes:>5}  {duration(row.total_s):>12}  {row.speedup:>8.1f}  "
            f"{row.efficiency:>10.0%}  {row.worker_hours:>12,.1f}  {row.bottleneck}{mark}"
        )


def _words(found: "ClusterForecast") -> Iterator[str]:
    row = found.asked
    busy = ", ".join(f"{stage} {part:.0%}" for stage, part in row.busy.items())
    yield f"{row.workers} worker{'s' * (row.workers > 1)}: {duration(row.total_s)}; busy: {busy}"
    if row.disk_bytes:
        kept = "" if found.disk_budget_bytes is None else "at most "
        yield (
            f"disk of a node: {sized(row.disk_bytes)} in use at a time; {kept}"
            f"{sized(row.kept_bytes)} with what is kept while there is room"
        )
    if found.data_bytes >= _MUCH_DATA_BYTES:
        yield (
            f"each node also fetches up to {sized(found.data_bytes)} of each training data set, "
            "which is in none of these times"
        )
    yield found.why
