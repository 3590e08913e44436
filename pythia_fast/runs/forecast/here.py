"""What a sweep will take, before it is begun: bytes, room, arithmetic, time; what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.markup import html_facts
from pythia_fast.metrics import Metric, resolve
from pythia_fast.model import resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.publish import free_bytes
from pythia_fast.quantities import counted, duration, parse_bytes, parse_bytes_per_s, sized
from pythia_fast.runs.forecast import rates, stages
from pythia_fast.runs.forecast.planned import PlannedStep, planned_step
from pythia_fast.runs.plan import Sequences, sequences_argument
from pythia_fast.runs.steps.survey import Survey, survey
from pythia_fast.runs.work import Data, sweep_flops, usual_positions
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource


@dataclass(frozen=True)
class Forecast:
    """What a sweep will take.

    Attributes:
        model, source, steps: what of, from where, and each step.
        device, dtype: what would be computed on and in.
        download_bytes: all that is to come over the network, the same weights once.
        makes_masks: whether that is an estimate, since causal masks are made, not downloaded.
        largest_bytes: the largest checkpoint: no disk budget may be less.
        disk_bytes: what downloads would take if all stayed, with the disk budget at most that.
        free_bytes: what is free now where they go.
        load_bytes: what will be read, of the steps that are loaded.
        flops: operations, by `pythia_fast.runs.work.sweep_flops`.
        rates: this machine's, measured a moment ago, unless you gave the network's.
        stage_s: seconds of each stage; they overlap.
        first_s: until the first checkpoint is there, when nothing can overlap yet.
        bottleneck: the longest stage.
        total_s: about how long it will take: the bottleneck, what must come before it of the first
            step, and after it of the last.
    """

    model: str
    source: str
    steps: tuple[PlannedStep, ...]
    device: str
    dtype: str
    download_bytes: int
    makes_masks: bool
    largest_bytes: int
    disk_bytes: int
    free_bytes: int
    load_bytes: int
    flops: int
    rates: rates.Rates
    stage_s: Mapping[stages.Stage, float]
    first_s: float
    bottleneck: stages.Stage
    total_s: float

    @property
    def missing(self) -> tuple[PlannedStep, ...]:
        """The steps that cannot be had."""
        return tuple(step for step in self.steps if step.missing is not None)

    @property
    def fits(self) -> bool:
        """Whether each checkpoint that is to come finds room on the disk, if by itself."""
        return all(
            step.nbytes - step.here_bytes <= self.free_bytes
            for step in self.steps
            if step.missing is None and step.download_bytes
        )

    def __repr__(self) -> str:
        missing = f" ({len(self.missing)} missing)" if self.missing else ""
        about = "about " if self.makes_masks else ""
        return (
            f"<Forecast {self.model} in {self.dtype} on {self.device}: "
            f"{counted(len(self.steps), 'step')}{missing}, {about}{sized(self.download_bytes)} to "
            f"download, {duration(self.total_s)} in all; the bottleneck: {self.bottleneck}>"
        )

    def _repr_html_(self) -> str:
        longest = self.bottleneck
        there = len(self.steps) - len(self.missing)
        facts = [
            ("steps", f"{there} of {len(self.steps)} are there"),
            ("missing", [step.step for step in self.missing] or None),
            ("to download", f"{'about ' * self.makes_masks}{sized(self.download_bytes)}"),
            ("disk needed", f"{sized(self.disk_bytes)}, of {sized(self.free_bytes)} free"),
            ("largest checkpoint", sized(self.largest_bytes)),
            ("operations", f"{self.flops:.3g}"),
            *(
                (stage, f"{duration(elapsed_s)}{', the bottleneck' * (stage == longest)}")
                for stage, elapsed_s in self.stage_s.items()
            ),
            ("in all", f"{duration(self.total_s)} (the stages overlap)"),
        ]
        title = f"{self.model} in {self.dtype} on {self.device}, from {self.source}"
        return html_facts(facts, title=title)

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON knows."""
        return asdict(self)


def plan(
    model: str | Path,
    steps: Steps = "all",
    *,
    tokens: TokenDataset | TokenSource | None = None,
    sequences: int | slice | Literal["seen", "unseen"] = 512,
    metrics: str | Metric | Sequence[str | Metric] = ("perplexity",),
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    network: int | str | None = None,
) -> Forecast:
    """What the sweep with these arguments would take, found out before it is begun.

        forecast = pythia_fast.plan("12b", network="1GB")
        forecast.total_s, forecast.bottleneck, forecast.missing

    Every step is resolved to a commit, its files are listed and chosen; missing steps, duplicates
    and known anomalies are found by that. Nothing is downloaded, but for the first piece of what
    is needed anyway, by which the network is measured, for some seconds: the sweep goes on from
    it. Giving `network` saves that. What a run folder holds already is not considered.

    Args:
        model: a name of the suite or a folder of checkpoints.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        tokens: as for `sweep`. Data on the Hub is not looked at: its rows are taken to be those of
            Pythia's training data, 2049 tokens each.
        sequences: as for `sweep`.
        metrics: as for `sweep`. One of your own counts as a forward pass over what it looks at.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: as for `sweep`.
        cache_dir: where downloads would go.
        disk_budget: the most that they may take, as "500GB" or in bytes.
        network: bytes a second, as a number or a text such as "1GB" (or "1GB/s").

    Raises:
        UnknownModelError, UnknownStepError, ArgumentError: as `sweep` does.
        HubError: the Hub does not answer, or sends nothing.
    """
    target = resolve_device(device)
    chosen = sequences_argument(sequences)
    measured_metrics = resolve(metrics)
    given = None if network is None else parse_bytes_per_s(network)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    wanted = parse_steps(steps, series.steps, series=series.name)
    data = Data(dataset_here(tokens, cache_dir))
    found = survey(series, wanted)
    groups = found.same_weights(step for step in wanted if step not in found.missing)
    to_load = steps_to_load(groups, chosen)
    flops_of = {
        step: sweep_flops(series.spec, [step], measured_metrics, data, chosen)
        for step in wanted
        if step in to_load
    }
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    _check_budget(found, budget_bytes)
    positions = usual_positions(series.spec, wanted[-1], measured_metrics, data, chosen)
    compute = partial(
        rates.compute_flop_per_s, series.spec.architecture, precision, target, positions
    )
    measured = _rates(series, found, groups, compute, given, budget_bytes)
    return _forecast(
        *(series, found, groups, flops_of, measured),
        budget_bytes=budget_bytes,
        device=str(target),
        dtype=precision.name,
    )


def _check_budget(found: Survey, budget_bytes: int | None) -> None:
    """ArgumentError if not even one checkpoint fits: the sweep could not begin."""
    needed, step = max(
        (
            (each.nbytes - each.elsewhere_bytes, step)
            for step, each in found.revisions.items()
            if each.error is None and each.coming_bytes
        ),
        default=(0, 0),
    )
    if budget_bytes is not None and needed > budget_bytes:
        raise ArgumentError(
            f"a disk budget of {budget_bytes:,} bytes is too small: step {step} alone takes "
            f"{needed:,}"
        )


def steps_to_load(groups: Sequence[tuple[int, ...]], sequences: Sequences) -> set[int]:
    """Of the same weights the first; all of them where each step has rows of its own."""
    if isinstance(sequences, str):
        return {step for group in groups for step in group}
    return {group[0] for group in groups}


def _rates(
    series: CheckpointSeries,
    found: Survey,
    groups: Sequence[tuple[int, ...]],
    compute: Callable[[], float],
    given: float | None,
    budget_bytes: int | None,
) -> rates.Rates:
    firsts = [group[0] for group in groups]
    missing_bytes = found.download_bytes(firsts)
    network = given
    if given is None and missing_bytes:
        to_come = [step for step in firsts if found.revisions[step].download_bytes]
        network = rates.network_bytes_per_s(series, to_come, missing_bytes)
    at_once = rates.hashed_at_once(series, [found.revisions[step] for step in firsts], budget_bytes)
    return rates.Rates(
        compute_flop_per_s=compute(),
        sha256_bytes_per_s=rates.sha256_bytes_per_s() * at_once,
        read_bytes_per_s=rates.read_bytes_per_s(series, firsts[0]) if firsts else None,
        network_bytes_per_s=network,
        network_measured=given is None and network is not None,
    )


def _forecast(
    series: CheckpointSeries,
    found: Survey,
    groups: Sequence[tuple[int, ...]],
    flops_of: Mapping[int, int],
    measured: rates.Rates,
    *,
    budget_bytes: int | None,
    device: str,
    dtype: str,
) -> Forecast:
    revisions = found.revisions
    firsts = [group[0] for group in groups]
    download_bytes, coming_bytes = found.download_bytes(firsts), found.coming_bytes(firsts)
    load_bytes = sum(revisions[step].nbytes for step in flops_of)
    flops = sum(flops_of.values())
    stage_s = stages.of(measured, download_bytes, load_bytes, flops)
    bottleneck = max(stage_s, key=lambda stage: stage_s[stage])
    first_s = total_s = 0.0
    if flops_of:
        first, last = (
            stages.of(measured, revision.download_bytes, revision.nbytes, flops_of[revision.step])
            for revision in (revisions[min(flops_of)], revisions[max(flops_of)])
        )
        first_s = stages.before_s(first, "compute")
        total_s = (
            stages.before_s(first, bottleneck)
            + stage_s[bottleneck]
            + stages.after_s(last, bottleneck)
        )
    return Forecast(
        model=series.name,
        source=series.source,
        steps=tuple(planned_step(step, found, groups) for step in revisions),
        device=device,
        dtype=dtype,
        download_bytes=download_bytes,
        makes_masks=found.makes_masks(firsts),
        largest_bytes=max((revisions[step].nbytes for step in firsts), default=0),
        disk_bytes=coming_bytes if budget_bytes is None else min(coming_bytes, budget_bytes),
        free_bytes=free_bytes(series.folder),
        load_bytes=load_bytes,
        flops=flops,
        rates=measured,
        stage_s=stage_s,
        first_s=first_s,
        bottleneck=bottleneck,
        total_s=total_s,
    )


def dataset_here(
    tokens: TokenDataset | TokenSource | None, cache_dir: str | Path | None
) -> TokenDataset | None:
    """The data, if it is on this machine."""
    if isinstance(tokens, TokenDataset):
        return None if tokens.is_remote else tokens
    if tokens is None or (isinstance(tokens, str) and tokens.startswith("hub:")):
        return None
    return TokenDataset(tokens, cache_dir=cache_dir)
