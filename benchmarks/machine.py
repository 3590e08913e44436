"""The machine that a figure belongs to: processor, flags, threads, caches, versions."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
"""What decides which kernels run, on x86 and on ARM."""

PACKAGES = (
    *("pythia-fast", "torch", "transformers", "numpy", "safetensors", "pyarrow", "lm-eval"),
    "transformer-lens",
)


def describe_machine() -> dict[str, Any]:
    """The hardware, its state and the versions, as plain JSON."""
    flags = _cpu_flags()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "caches": _caches(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "huge_pages": _first_line(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def machine_name() -> str:
    """A name for files: processor, its widest instructions, cores: "intel-xeon-amx-2core"."""
    words = re.sub(r"\(\w+\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", _cpu_model())
    flags = _cpu_flags()
    widest = {"amx": "amx_bf16", "avx512": "avx512f", "avx2": "avx2", "sve": "sve"}
    name = next((name for name, flag in widest.items() if flag in flags), platform.machine())
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "cpu"
    return f"{slug}-{name}-{os.cpu_count()}core"


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return set((_cpu_field("flags") or _cpu_field("Features")).split())


def _cpu_field(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.split(":")[0].strip() == name:
            return line.split(":", 1)[1].strip()
    return ""


def _caches() -> dict[str, str]:
    """Each cache of the first core, such as {"L1 Data": "48K"}."""
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_first_line(cache / name) for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
