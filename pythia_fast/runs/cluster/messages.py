"""What a worker is told, and what it tells. Of a worker's messages the order is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pythia_fast.runs.cluster.sent_error import SentError
from pythia_fast.runs.plan import Plan, Rows
from pythia_fast.series import CheckpointSeries
from pythia_fast.streaming.times import LoadTimes


@dataclass(frozen=True)
class Work:
    """What all steps of one model have in common; `model` is its place among those asked for.

    `folder` is the run folder as the driver sees it, and `probe` a file in it that the driver
    keeps there: who sees that file shares the folder. `sample` are some rows of the data with their
    fingerprint, by which a worker sees that its files are the driver's; None for the Hub's.
    """

    model: int
    series: CheckpointSeries
    plan: Plan
    batch_tokens: int | Literal["auto"]
    folder: Path
    run_hash: str
    probe: Path
    sample: tuple[Rows, str] | None


@dataclass(frozen=True)
class Order:
    """One step to be computed: what is known of it, and which of its units are there already.

    `done` are names of units with the sha256 of the weights that they are of.
    """

    model: int
    step: int
    remarks: tuple[str, ...]
    done: Mapping[str, str]


@dataclass(frozen=True)
class Hello:
    """Who a worker is, once it can work; `precisions` are those of the models, by name.

    `node` is Ray's name for its machine, of which there may be several with one host name.
    """

    node: str
    host: str
    precisions: tuple[str, ...]


@dataclass(frozen=True)
class _OfStep:
    model: int
    step: int


@dataclass(frozen=True)
class Loading(_OfStep):
    """The step is being loaded: it cannot be given back any more."""


@dataclass(frozen=True)
class Began(_OfStep):
    """The step is loaded and is computed now."""


@dataclass(frozen=True)
class Advanced(_OfStep):
    """So many tokens more were looked at, or `skipped`, since their results are there."""

    tokens: int
    skipped: bool


@dataclass(frozen=True)
class LoadedIn:
    """How long the stages of a step took until it was loaded."""

    times: LoadTimes


@dataclass(frozen=True)
class Computed:
    """Computing took so much longer."""

    elapsed_s: float


@dataclass(frozen=True)
class WaitsFor(_OfStep):
    """There is nothing to compute before the step has come."""

    received_bytes: int
    waits_for_room: bool


@dataclass(frozen=True)
class Part(_OfStep):
    """The file of a finished unit, where the worker does not see the run folder."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Finished(_OfStep):
    """All units of the step are there."""

    weights_sha256: str


@dataclass(frozen=True)
class Failed(_OfStep):
    """The step failed, for a reason of its own."""

    error: SentError


@dataclass(frozen=True)
class Fatal:
    """Nothing more can be done by any worker: the run does not fit what it is asked for."""

    error: SentError


@dataclass(frozen=True)
class Unfit:
    """The worker cannot even begin with this model: no room for it, no data. Others it may."""

    model: int
    error: SentError


@dataclass(frozen=True)
class Unable:
    """The worker can do no more, for whatever reason; others may."""

    error: SentError


Message = (
    Loading
    | Began
    | Advanced
    | LoadedIn
    | Computed
    | WaitsFor
    | Part
    | Finished
    | Failed
    | Unfit
    | Unable
    | Fatal
)
