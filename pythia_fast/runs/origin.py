"""Where a unit's numbers are from, as its part says: the step's weights, the machine, the time."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pythia_fast.runs.folder.run_folder import Parts, versions
from pythia_fast.runs.plan import Plan, Unit
from pythia_fast.series import CheckpointSeries
from pythia_fast.streaming.prefetching import Loaded
from pythia_fast.streaming.times import LoadTimes


def origin_of(
    folder: Parts,
    series: CheckpointSeries,
    plan: Plan,
    loaded: Loaded,
    *,
    duplicate_of: int | None,
    remarks: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """The provenance that all units of a loaded step have in common."""
    installed = versions()
    return {
        "run": folder.hash,
        "model": plan.spec.name,
        "step": loaded.step,
        "source": series.source,
        "commit": loaded.checkpoint.commit,
        "identity": loaded.identity,
        "weights_sha256": loaded.weights_sha256,
        "weights_nonfinite": sum(loaded.report.nonfinite.values()),
        "duplicate_of": duplicate_of,
        "remarks": list(remarks),
        "dtype": plan.dtype,
        "device": device_name(device),
        "tokens_fingerprint": plan.specification["tokens"],
        "version": installed["pythia-fast"],
        "versions": installed,
        **loaded.times.to_dict(),
    }


def of_unit(unit: Unit, compute_s: float) -> dict[str, Any]:
    """What a unit adds to its step's provenance."""
    return {
        "metric": unit.metric.name,
        "shard": unit.shard,
        "shards": unit.shards,
        "compute_s": compute_s,
    }


def origin_of_twin(
    there: Mapping[str, Any],
    *,
    step: int,
    commit: str | None,
    identity: str,
    duplicate_of: int,
    remarks: Sequence[str],
) -> dict[str, Any]:
    """The provenance of a unit whose rows were computed as `there`, with the same weights."""
    return {
        **there,
        "step": step,
        "commit": commit,
        "identity": identity,
        "duplicate_of": duplicate_of,
        "remarks": list(remarks),
        **LoadTimes().to_dict(),
        "compute_s": 0.0,
    }


def device_name(device: torch.device) -> str:
    """The device in words: "cpu", or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
