"""Where a model can compute, and how much memory is free there."""

import math
import os
from pathlib import Path

import torch

from pythia_fast.errors import ArgumentError

CGROUP = Path("/sys/fs/cgroup")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """`device`, or the first GPU, or else the CPU. ArgumentError if it is neither, or not here."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ArgumentError(f"no device {device!r}: {error}") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device {device!r} is neither a CPU nor a CUDA GPU")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device {device!r} was asked for, but torch sees no GPU here")
    return resolved


def free_bytes(device: torch.device) -> int:
    """Memory on `device` that is free or can be freed, in bytes."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return int(min(free, _left_to_us(CGROUP)))


def _left_to_us(cgroup: Path) -> int | float:
    """What a container or a batch system still gives to this process; cached files don't count."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
    return max(0, limit - used + cached)
