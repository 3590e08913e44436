"""What a sweep will take, before it is begun: bytes, room, arithmetic, time; what is missing."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Metric, resolve
from pythia_fast.model import Precision, resolve_precision
from pythia_fast.quantities import parse_bytes
from pythia_fast.runs import rates
from pythia_fast.runs.plan import Sequences, sequences_argument
from pythia_fast.runs.streaming import resolve_device
from pythia_fast.runs.survey import Survey, survey
from pythia_fast.runs.work import Data, sweep_flops
from pythia_fast.series import CheckpointSeries, Revision, open_series
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource

Stage = Literal["download", "verify", "read", "compute"]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One checkpoint of a sweep to come.

    `format` is "torch", "safetensors" or "GPT-NeoX", None if it is not known; `files` are those
    that will be read, with their sizes. With `missing`, the reason, the step cannot be had.
    `duplicate_of` is an earlier step of the sweep with the same weights; `anomalies` are known.
    """

    step: int
    commit: str | None
    format: str | None
    files: Mapping[str, int]
    here_bytes: int
    download_bytes: int
    duplicate_of: int | None
    missing: str | None
    anomalies: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """What its files take on the disk."""
        return sum(self.files.values())


@dataclass(frozen=True)
class Forecast:
    """What a sweep will take.

    Attributes:
        model, source, steps: what of, from where, and each step.
        device, dtype: what would be computed on and in.
        download_bytes: all that is to come over the network, the same weights once.
        largest_bytes: the largest checkpoint: no disk budget may be less.
        disk_bytes: what downloads will take at most, with the disk budget if there is one.
        free_bytes: what is free now where they go.
        load_bytes: what will be read, of the steps that are loaded.
        flops: operations, by `pythia_fast.runs.work.sweep_flops`.
        rates: this machine's, measured a moment ago, unless you gave the network's.
        stage_s: seconds of each stage; they overlap.
        first_s: until the first checkpoint is there, when nothing can overlap yet.
        bottleneck: the longest stage.
        total_s: about how long it will take: the bottleneck, and what comes before it can begin.
    """

    model: str
    source: str
    steps: tuple[PlannedStep, ...]
    device: str
    dtype: str
    download_bytes: int
    largest_bytes: int
    disk_bytes: int
    free_bytes: int
    load_bytes: int
    flops: int
    rates: rates.Rates
    stage_s: Mapping[Stage, float]
    first_s: float
    bottleneck: Stage
    total_s: float

    @property
    def missing(self) -> tuple[PlannedStep, ...]:
        """The steps that cannot be had."""
        return tuple(step for step in self.steps if step.missing is not None)

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
    given = None if network is None else parse_bytes(_without_second(network))
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    wanted = parse_steps(steps, series.steps)
    data = Data(_dataset(tokens, cache_dir))
    found = survey(series, wanted)
    groups = found.same_weights(step for step in wanted if step not in found.missing)
    to_load = _to_load(groups, chosen)
    computed = [step for step in wanted if step in to_load]
    flops = sweep_flops(series.spec, computed, measured_metrics, data, chosen)
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    _check_budget(found, budget_bytes)
    measured = _rates(series, found, groups, precision, target, given)
    return _forecast(
        *(series, found, groups, to_load, flops, measured),
        budget_bytes=budget_bytes,
        device=str(target),
        dtype=precision.name,
    )


def _check_budget(found: Survey, budget_bytes: int | None) -> None:
    """ArgumentError if not even one checkpoint fits: the sweep could not begin."""
    needed, step = max(
        ((each.nbytes, step) for step, each in found.revisions.items() if each.download_bytes),
        default=(0, 0),
    )
    if budget_bytes is not None and needed > budget_bytes:
        raise ArgumentError(
            f"a disk budget of {budget_bytes:,} bytes is too small: step {step} alone takes "
            f"{needed:,}"
        )


def _to_load(groups: Sequence[tuple[int, ...]], sequences: Sequences) -> set[int]:
    """Of the same weights the first; all of them where each step has rows of its own."""
    if isinstance(sequences, str):
        return {step for group in groups for step in group}
    return {group[0] for group in groups}


def _rates(
    series: CheckpointSeries,
    found: Survey,
    groups: Sequence[tuple[int, ...]],
    precision: Precision,
    device: torch.device,
    given: int | None,
) -> rates.Rates:
    firsts = [group[0] for group in groups]
    missing_bytes = found.download_bytes(firsts)
    network: float | None = given
    if given is None and missing_bytes:
        to_come = [step for step in firsts if found.revisions[step].download_bytes]
        network = rates.network_bytes_per_s(series, to_come, missing_bytes)
    return rates.Rates(
        compute_flop_per_s=rates.compute_flop_per_s(series.spec.architecture, precision, device),
        sha256_bytes_per_s=rates.sha256_bytes_per_s(),
        read_bytes_per_s=rates.read_bytes_per_s(series, firsts[0]) if firsts else 0.0,
        network_bytes_per_s=network,
        network_measured=given is None and network is not None,
    )


def _forecast(
    series: CheckpointSeries,
    found: Survey,
    groups: Sequence[tuple[int, ...]],
    to_load: set[int],
    flops: int,
    measured: rates.Rates,
    *,
    budget_bytes: int | None,
    device: str,
    dtype: str,
) -> Forecast:
    revisions = found.revisions
    download_bytes = found.download_bytes(group[0] for group in groups)
    load_bytes = sum(revisions[step].nbytes for step in to_load)
    largest = max((revisions[group[0]].nbytes for group in groups), default=0)
    network = measured.network_bytes_per_s
    stage_s: dict[Stage, float] = {
        "download": download_bytes / network if network and download_bytes else 0.0,
        "verify": load_bytes / measured.sha256_bytes_per_s,
        "read": load_bytes / measured.read_bytes_per_s if load_bytes else 0.0,
        "compute": flops / measured.compute_flop_per_s,
    }
    bottleneck = max(stage_s, key=lambda stage: stage_s[stage])
    first_s = _first_s(revisions[groups[0][0]], measured) if groups else 0.0
    return Forecast(
        model=series.name,
        source=series.source,
        steps=tuple(_planned(step, found, groups) for step in revisions),
        device=device,
        dtype=dtype,
        download_bytes=download_bytes,
        largest_bytes=largest,
        disk_bytes=download_bytes if budget_bytes is None else min(download_bytes, budget_bytes),
        free_bytes=shutil.disk_usage(rates.existing_parent(series.folder)).free,
        load_bytes=load_bytes,
        flops=flops,
        rates=measured,
        stage_s=stage_s,
        first_s=first_s,
        bottleneck=bottleneck,
        total_s=stage_s[bottleneck] + first_s,
    )


def _first_s(revision: Revision, measured: rates.Rates) -> float:
    """Until the first checkpoint can be computed with."""
    network = measured.network_bytes_per_s
    download_s = revision.download_bytes / network if network else 0.0
    return download_s + revision.nbytes / measured.read_bytes_per_s


def _planned(step: int, found: Survey, groups: Sequence[tuple[int, ...]]) -> PlannedStep:
    revision = found.revisions[step]
    first = next((group[0] for group in groups if step in group), step)
    duplicate = first != step
    return PlannedStep(
        step=step,
        commit=revision.commit,
        format=_format([file.path for file in revision.files]),
        files={file.path: file.size for file in revision.files},
        here_bytes=revision.here_bytes,
        download_bytes=0 if duplicate or revision.error else revision.download_bytes,
        duplicate_of=first if duplicate else None,
        missing=None if revision.error is None else str(revision.error),
        anomalies=found.remarks(step),
    )


def _format(names: Sequence[str]) -> str | None:
    suffixes = {Path(name).suffix for name in names}
    return {".bin": "torch", ".safetensors": "safetensors", ".pt": "GPT-NeoX"}.get(
        suffixes.pop() if len(suffixes) == 1 else ""
    )


def _dataset(
    tokens: TokenDataset | TokenSource | None, cache_dir: str | Path | None
) -> TokenDataset | None:
    """The data, if it is on this machine."""
    if isinstance(tokens, TokenDataset):
        return None if tokens.is_remote else tokens
    if tokens is None or (isinstance(tokens, str) and tokens.startswith("hub:")):
        return None
    return TokenDataset(tokens, cache_dir=cache_dir)


def _without_second(network: int | str) -> int | str:
    return network.removesuffix("/s") if isinstance(network, str) else network
