"""The GPU that a figure belongs to, beside what `machine` says of the computer around it."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine

PACKAGES = ("triton", "accelerate", "vllm", "flash-attn", "nvidia-cublas", "nvidia-cudnn-cu13")


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Both as plain JSON, with the versions of all that computes."""
    found: dict[str, Any] = describe_machine()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
        "l2_mb": round(properties.L2_cache_size / 1e6, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def gpu_name(device: torch.device) -> str:
    """A name for files: "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def _driver() -> str:
    """What the kernel module says of itself, or nothing where it is hidden."""
    said = Path("/proc/driver/nvidia/version")
    words = re.search(r"\d+\.\d+(\.\d+)?", said.read_text()) if said.exists() else None
    return words[0] if words else ""
