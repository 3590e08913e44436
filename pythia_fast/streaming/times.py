"""Where the time of a step goes, stage by stage, and which stage keeps the others waiting."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pythia_fast.model import LoadReport
from pythia_fast.series import Checkpoint

WAITING_SHARE = 0.05
"""Computing that waits for less than this part of its time is the bottleneck itself."""


_BEFORE_COMPUTE = ("download_s", "room_s", "verify_s", "open_s", "read_s", "copy_s")
_BESIDE_COMPUTE = ("wait_s", "received_bytes")


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Seconds that it took to bring a checkpoint into its arena, and bytes that came for it.

    Stages of several checkpoints overlap, so their sums over the steps exceed the time on a clock.
    """

    download_s: float = 0.0
    """From the first byte asked for to the last one received, side by side with other steps."""
    room_s: float = 0.0
    """Waiting for room in the disk budget, before the download."""
    verify_s: float = 0.0
    """The sha256, as far as it was not computed while the bytes arrived."""
    open_s: float = 0.0
    """How long the reader waited until the files were there and their headers checked."""
    read_s: float = 0.0
    """From the files into memory, converted to the resident data type."""
    copy_s: float = 0.0
    """From memory to the GPU."""
    wait_s: float = 0.0
    """How long computing had nothing to do until this step was loaded."""
    received_bytes: int = 0

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, report: LoadReport, *, open_s: float, hash_s: float
    ) -> "LoadTimes":
        """What its download (if there was one) and its load report; `hash_s` came on top."""
        fetch = checkpoint.fetch
        return cls(
            download_s=0.0 if fetch is None else fetch.download_s,
            room_s=0.0 if fetch is None else fetch.wait_s,
            verify_s=hash_s if fetch is None else fetch.verify_s + hash_s,
            open_s=open_s,
            read_s=report.elapsed_s - report.copy_s,
            copy_s=report.copy_s,
            received_bytes=0 if fetch is None else fetch.received_bytes,
        )

    @classmethod
    def from_provenance(cls, origin: Mapping[str, Any]) -> "LoadTimes":
        """What a part says; what it does not say, as those of older versions, is zero."""
        return cls(**{name: origin.get(name, 0) for name in (*_BEFORE_COMPUTE, *_BESIDE_COMPUTE)})

    def to_dict(self) -> dict[str, float]:
        """By name, as a part keeps it."""
        return asdict(self)


def times_table(
    compute_s: Mapping[int, float], loads: Mapping[int, Iterable[LoadTimes]]
) -> pa.Table:
    """One row for each step, the loads of each added up; see `SweepResult.times`."""
    rows = []
    for step, of_step in loads.items():
        row: dict[str, float] = {"step": step}
        row |= {name: sum(getattr(load, name) for load in of_step) for name in _BEFORE_COMPUTE}
        row["compute_s"] = compute_s[step]
        row |= {name: sum(getattr(load, name) for load in of_step) for name in _BESIDE_COMPUTE}
        rows.append(row)
    names = ("step", *_BEFORE_COMPUTE, "compute_s", *_BESIDE_COMPUTE)
    whole = ("step", "received_bytes")
    schema = pa.schema([(name, pa.int64() if name in whole else pa.float64()) for name in names])
    return pa.Table.from_pylist(rows, schema)


class Bottleneck:
    """Adds up what the stages took and says which one the sweep waits for. Threads may share it.

    The first step of a sweep is always waited for, so its waiting does not count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads = 0
        self._compute_s = self._wait_s = 0.0
        self._stages: dict[str, float] = {}

    def loaded(self, times: LoadTimes) -> None:
        """One more checkpoint was loaded."""
        with self._lock:
            self._loads += 1
            if self._loads == 1:
                return
            self._wait_s += times.wait_s
            for stage, elapsed_s in _reader_stages(times).items():
                self._stages[stage] = self._stages.get(stage, 0.0) + elapsed_s

    def computed(self, elapsed_s: float) -> None:
        """Computing took so much longer."""
        with self._lock:
            self._compute_s += elapsed_s

    @property
    def stage(self) -> str | None:
        """The slowest stage's name, or None before a second checkpoint was loaded."""
        with self._lock:
            if self._loads < 2:
                return None
            if self._waiting() <= WAITING_SHARE or not any(self._stages.values()):
                return "compute"
            return max(self._stages, key=lambda stage: self._stages[stage])

    def words(self) -> str | None:
        """For the progress: "bound by compute", "bound by download (waits 63% of the time)"."""
        stage = self.stage
        if stage is None or stage == "compute":
            return stage and f"bound by {stage}"
        return f"bound by {stage} (waits {self._waiting():.0%} of the time)"

    def _waiting(self) -> float:
        busy_s = self._compute_s + self._wait_s
        return self._wait_s / busy_s if busy_s > 0 else 0.0


def _reader_stages(times: LoadTimes) -> dict[str, float]:
    """What the reader did for one step; its waiting for files is put down to their slowest part."""
    stages = {"read": times.read_s, "copy": times.copy_s}
    files = {
        "download": times.download_s,
        "disk budget": times.room_s,
        "verify": times.verify_s,
    }
    slowest = max(files, key=lambda stage: files[stage])
    if not times.received_bytes and not times.room_s:
        slowest = "verify"  # all was here: what opening takes is the sha256
    stages[slowest] = max(times.open_s, 0.0)
    if not times.received_bytes:
        stages["verify"] = max(stages.get("verify", 0.0), times.verify_s)
    return stages
