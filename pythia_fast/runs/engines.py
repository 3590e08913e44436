"""Who computes a sweep of one or several models: this process, or the workers of a cluster."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from pythia_fast.errors import OnError
from pythia_fast.model import resolve_precision
from pythia_fast.quantities import counted
from pythia_fast.runs.asked import Asked, named
from pythia_fast.runs.cluster import Cluster, RayEngine
from pythia_fast.runs.local import LocalEngine
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.share import Dealt, Share


def compute_there(
    asked: Sequence[Asked], progress: Progress, cluster: Cluster, on_error: OnError
) -> None:
    """All models at a time, on the workers of a cluster."""
    placed = cluster.placing
    gpus = f" and {counted(placed.gpus, 'GPU')}" if placed.gpus else ""
    for one in asked:
        progress.say(
            f"{one.series.name}: computing in {one.plan.dtype} on "
            f"{counted(placed.count, 'worker')} with {counted(placed.cpus, 'CPU')}{gpus} each"
        )
    RayEngine(cluster, asked, progress, on_error).run()


def compute_here(
    asked: Sequence[Asked],
    progress: Progress,
    device: torch.device,
    on_error: OnError,
    share: Share | None,
) -> list[tuple[int, ...]]:
    """One model after the other, when all that is left of each is known and can be had.

    The steps of each that are this process's, and are done now. With a `share` all models' steps
    are dealt out one after the other, so that of a step each every process has its part.
    """
    with ExitStack() as stack:
        engines, dealt = [], Dealt()
        for one in asked:
            view = progress.of(one.series.name) if len(asked) > 1 else progress
            engines.append(stack.enter_context(LocalEngine(one, view, on_error, share)))
        for one, engine in zip(asked, engines, strict=True):
            progress.say(f"{one.series.name}: computing in {one.plan.dtype} on {device}")
            with named(one.series.name, len(asked)):
                dealt = engine.survey(dealt)
        for one, engine in zip(asked, engines, strict=True):
            precision = resolve_precision(one.plan.dtype, device, one.plan.spec.architecture)
            with named(one.series.name, len(asked)):
                engine.run(device, precision)
        return [engine.steps for engine in engines]
