"""The stages of a sweep, which overlap: how long each takes, and what cannot overlap."""

from collections.abc import Mapping
from typing import Literal

from pythia_fast.runs.forecast.rates import Rates

Stage = Literal["download", "verify", "read", "compute"]


def of(measured: Rates, download_bytes: int, load_bytes: int, flops: int) -> dict[Stage, float]:
    """The seconds of each stage; 0 of one whose rate is not known."""
    network, read = measured.network_bytes_per_s, measured.read_bytes_per_s
    return {
        "download": download_bytes / network if network else 0.0,
        "verify": load_bytes / measured.sha256_bytes_per_s,
        "read": load_bytes / read if read else 0.0,
        "compute": flops / measured.compute_flop_per_s,
    }


def before_s(first: Mapping[Stage, float], stage: Stage) -> float:
    """What of the first step is over when a stage can begin; bytes are hashed as they come."""
    arrive_s = max(first["download"], first["verify"])
    return {"read": arrive_s, "compute": arrive_s + first["read"]}.get(stage, 0.0)


def after_s(last: Mapping[Stage, float], stage: Stage) -> float:
    """What of the last step is left when a stage has ended."""
    left_s = {"compute": 0.0, "read": last["compute"]}
    return left_s.get(stage, last["read"] + last["compute"])
