"""What the GPU gives at most, measured through torch: matrix products, copies on it and to it."""

import statistics
from dataclasses import dataclass
from typing import ClassVar

import torch
from roofline import Roofline, Work

from on_gpu.bench import HALVES, Bench, WrongAnswerError, name_of
from on_gpu.clock import Call, clock_of

SIDE, COPIED_BYTES, PINNED_BYTES = 8192, 1 << 32, 1 << 30
ROUNDS = 11


@dataclass(frozen=True, slots=True)
class GpuRoofline(Roofline):
    """Peaks of one GPU: products in a data type, and memory, where what is read and written counts.

    The peak of a product is that of cuBLAS at one large shape, no law of nature: a kernel may come
    out above it.
    """

    MEMORY: ClassVar[str] = "device_copy"

    def peak(self, dtype: str) -> tuple[str, float]:
        """The product's name and rate."""
        return f"{dtype}_product", self.peaks[f"{dtype}_product_flop_per_s"]


def measure_ceilings(device: torch.device) -> GpuRoofline:
    """A second of products and copies of random numbers; tiny and meaningless on a CPU."""
    rehearsal = device.type != "cuda"
    side = 64 if rehearsal else SIDE
    peaks = {}
    for dtype in HALVES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        elapsed_s = _median_s(device, lambda a=a, b=b: torch.mm(a, b))
        peaks[f"{name_of(dtype)}_product_flop_per_s"] = 2 * side**3 / elapsed_s
    free = 1 << 16 if rehearsal else torch.cuda.mem_get_info(device)[0] // 4
    source = _bytes(min(COPIED_BYTES, free), device)
    target = torch.empty_like(source)
    elapsed_s = _median_s(device, lambda: target.copy_(source))
    peaks["device_copy_byte_per_s"] = 2 * source.nbytes / elapsed_s
    pinned = _bytes(1 << 16 if rehearsal else PINNED_BYTES, torch.device("cpu"))
    if not rehearsal:
        pinned = pinned.pin_memory()
    target = target[: len(pinned)]
    for name, (to, come_from) in {
        "pinned_to_device": (target, pinned),
        "device_to_pinned": (pinned, target),
    }.items():
        elapsed_s = _median_s(
            device, lambda to=to, come_from=come_from: to.copy_(come_from, non_blocking=True)
        )
        peaks[f"{name}_byte_per_s"] = pinned.nbytes / elapsed_s
    return GpuRoofline(peaks, torch.get_num_threads())


def run(bench: Bench) -> None:
    """The ceilings as rows of their own, and products in the shapes of the models."""
    assert bench.roofline is not None
    for name, rate in bench.roofline.peaks.items():
        unit = "TFLOP/s" if name.endswith("flop_per_s") else "GB/s"
        scale = 1e12 if unit == "TFLOP/s" else 1e9
        what = name.rsplit("_", 3)[0].replace("_", " ")
        bench.note(what, {"rate": rate / scale, "unit": unit})
    rows, widths = (32, (64,)) if bench.rehearsal else (16_384, (512, 1024, 2048, 5120))
    for width in bench.within_time(widths):
        for dtype in bench.halves:
            a_ND = bench.random(rows, width, dtype=dtype)
            w_OD = bench.random(4 * width, width, dtype=dtype, scale=width**-0.5)
            out_NO = bench.poisoned(rows, 4 * width, dtype=dtype)
            torch.mm(a_ND, w_OD.T, out=out_NO)
            exact = a_ND[:64].double() @ w_OD.double().T
            error = float((out_NO[:64] - exact).norm() / exact.norm())
            if not error < torch.finfo(dtype).eps:
                raise WrongAnswerError(f"a product of torch is off by {error:.3g}")
            work = Work(2.0 * rows * 4 * width * width, dtype=name_of(dtype))
            bench.race(
                f"product {rows} x {width} x {4 * width}, {name_of(dtype)}",
                lambda a_ND=a_ND, w_OD=w_OD, out_NO=out_NO: torch.mm(a_ND, w_OD.T, out=out_NO),
                {},
                work=work,
                numbers={"relative_error": error},
            )


def _median_s(device: torch.device, call: Call) -> float:
    clock, rounds = clock_of(device), ROUNDS if device.type == "cuda" else 1
    ready, _ = clock.ready(call)
    return statistics.median(clock.rounds({"it": ready}, rounds)["it"])


def _bytes(count: int, device: torch.device) -> torch.Tensor:
    return torch.randint(256, (count,), dtype=torch.uint8, device=device)
