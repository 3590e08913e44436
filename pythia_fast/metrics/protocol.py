"""What a metric is: one value per sequence, from a model and a batch of sequences.

B sequences in a batch, T tokens in the longest of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.metrics.code import code_sha256, name_of
from pythia_fast.model import Model

_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))

Column: TypeAlias = torch.Tensor | npt.NDArray[Any] | pa.Array | pa.ChunkedArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sequences of a dataset, padded on the right with token 0 to the longest of them.

    Attributes:
        ids_BT: int64, on the model's device.
        lengths_B: int64, the tokens of each sequence without the padding.
        rows_B: int64, each sequence's row in the dataset.
        scores: `model.score(ids_BT)`, where it was computed once for several metrics that each say
            `uses_scores`; None where a metric is alone.
    """

    ids_BT: torch.Tensor
    lengths_B: torch.Tensor
    rows_B: npt.NDArray[np.int64]
    scores: TokenScores | None = None


class Metric(Protocol):
    """A question that is asked of every sequence at every checkpoint.

    A metric may also have `max_tokens` (it looks at no more than so many tokens of a sequence),
    `min_tokens` (it needs as many), `summarize` (from all sequences to the numbers of a step; the
    default is the mean of each column), `settings` (plain values that change its results; the
    default is its attributes) and `uses_scores` (True: where the batch has `scores` it takes them,
    and gives what it would give without; the sequences may be longer than `max_tokens` there). It
    must give a sequence the same value whatever the batch around it.

    A run is of one code of a metric: its class and what that uses, by name, of the same module or
    notebook: functions, classes and plain values. Not seen are changes in other modules, of arrays
    and tensors, and of what the code itself changes, such as a counter or a cache: a `settings`
    with a version, raised by hand, tells of these. In a notebook, and where a class was changed
    since its file was imported, another version of Python counts as other code.
    """

    @property
    def name(self) -> str:
        """The metric's name in tables and file names: up to 100 letters, digits, `-` and `_`."""
        ...

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Column]:
        """Measure a batch: named columns with one value per sequence, [B] each."""
        ...


def summarize(metric: Metric | None, sequences: pa.Table) -> dict[str, float]:
    """The numbers of a step: by the metric's own rule, else the mean of each numeric column.

    No sequences, as of those that step 0 has seen, give no numbers.
    """
    if not len(sequences):
        return {}
    own_rule = getattr(metric, "summarize", None)
    if own_rule is not None:
        numbers = own_rule(sequences)
        if metric is None or not isinstance(numbers, Mapping):
            raise ArgumentError(f"`summarize` gives a dict of names to numbers, not {numbers!r}")
        return dict(numbers)
    means = {}
    for field in sequences.schema:
        if field.name == "sequence" or not _is_number(field.type):
            continue
        means[field.name] = pc.mean(sequences[field.name].cast(pa.float64())).as_py()
    return means


def looked_at(metric: Metric, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many tokens the metric looks at of sequences of these lengths."""
    limit: int | None = getattr(metric, "max_tokens", None)
    return lengths if limit is None else np.minimum(lengths, limit)


def uses_scores(metric: Metric) -> bool:
    """Whether the metric takes scores that were computed for several metrics at once."""
    return bool(getattr(metric, "uses_scores", False))


def min_tokens(metric: Metric) -> int:
    """How many tokens a sequence must have for the metric to apply."""
    return getattr(metric, "min_tokens", 2)


def identity(metric: Metric) -> dict[str, Any]:
    """What determines a metric's values, as plain JSON: name, type, settings and its code.

    The code of built-in metrics goes with the package's version, which every part carries.
    ArgumentError if a setting is no plain value: then the metric needs a `settings` of its own.
    """
    if hasattr(metric, "settings"):
        settings = metric.settings
        if not isinstance(settings, Mapping):
            raise ArgumentError(f"`settings` of the metric {metric.name!r} is a dict: {settings!r}")
    else:
        settings = {field: getattr(metric, field) for field in _attributes(metric)}
    try:
        settings = {key: value for key, value in settings.items() if key != "name"}
        settings = json.loads(json.dumps(settings, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"the metric {metric.name!r} holds something that is no plain value ({error}); give it "
            "a property `settings`: a dict of the numbers and strings that change its results"
        ) from error
    return {
        "name": metric.name,
        "type": name_of(metric),
        "settings": settings,
        "code": code_sha256(metric),
    }


def _attributes(metric: Metric) -> list[str]:
    """The attributes that make a metric: its own, in slots or not, and those of its classes.

    Of a class those that are plain values, so that `k = 5` in its body counts as if `__init__` had
    set it.
    """
    names = dict.fromkeys(getattr(metric, "__dict__", {}))
    for kind in type(metric).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names |= dict.fromkeys((slots,) if isinstance(slots, str) else slots)
        for name, value in kind.__dict__.items():
            if not name.startswith("_") and isinstance(value, _PLAIN):
                names[name] = None
    return [name for name in names if hasattr(metric, name)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )
