"""Metrics over some rows of a dataset, batch by batch."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics import Batch, Metric, looked_at
from pythia_fast.metrics.code import module_of
from pythia_fast.metrics.protocol import Column, uses_scores
from pythia_fast.model import Model, Precision, sent
from pythia_fast.runs.plan import Rows, batches
from pythia_fast.runs.results.tables import RESERVED, stacked
from pythia_fast.suite import Architecture
from pythia_fast.tokens import TokenDataset

CPU_BATCH_TOKENS = 16 * 2049
"""Of 64 tokens, 512 sequences: decoding reads all weights for each token of a batch."""

GPU_BATCH_TOKENS = 64 * 2049
"""Some passes of the largest kind: after each batch the host waits for its numbers."""

SHARING_SHARE = 0.8
"""Metrics share scores if each looks at so much of what the one with the longest look does."""

ACTIVATION_BYTES = 64 << 20
"""What the widest activation of an automatic batch takes: attention and MLP side by side."""


def auto_batch_tokens(architecture: Architecture, precision: Precision) -> int:
    """Tokens of a batch, at least one sequence's: those whose widest activation takes 64 MB.

    The kernels' model itself cuts a batch to measure, so that it costs little memory.
    """
    one_sequence = architecture.max_positions + 1
    if precision.triton:
        return max(GPU_BATCH_TOKENS, one_sequence)
    if precision.arithmetic is not None:
        return max(CPU_BATCH_TOKENS, one_sequence)
    token_bytes = (architecture.width + architecture.intermediate) * precision.dtype.itemsize
    return max(ACTIVATION_BYTES // token_bytes, one_sequence)


def measure(
    metrics: Sequence[Metric],
    model: Model,
    dataset: TokenDataset,
    rows: Rows,
    *,
    batch_tokens: int,
    advance: Callable[[int], None],
) -> list[pa.Table]:
    """Each metric's columns for `rows`, with the row numbers as the column `sequence`.

    More than one metric go over each batch with the same scores. Where a batch does not fit into
    memory it is halved, and so on down to a single sequence.
    """
    all_lengths = dataset.lengths_of(rows)
    each_looks_at = [looked_at(metric, all_lengths) for metric in metrics]
    lengths = np.max(each_looks_at, axis=0)
    tables: list[list[pa.Table]] = [[] for _ in metrics]
    todo = list(batches(lengths, batch_tokens))[::-1]
    while todo:
        cut = todo.pop()
        try:
            batch = _gather(dataset, rows[cut], lengths[cut], model)
            if len(metrics) > 1:
                batch = replace(batch, scores=model.score(batch.ids_BT))
            untouched = _versions(batch)
            measured = []
            for metric in metrics:
                measured.append(_table(metric, batch, _asked(metric, model, batch)))
                if len(metrics) > 1 and _versions(batch) != untouched:
                    raise ArgumentError(
                        f"the metric {metric.name!r} writes to its batch, in which others look too "
                        "(`uses_scores`): let it write to a copy"
                    )
        except torch.OutOfMemoryError:
            if cut.stop - cut.start < 2:
                raise
            middle = (cut.start + cut.stop) // 2
            todo += [slice(middle, cut.stop), slice(cut.start, middle)]
        else:
            for some, table in zip(tables, measured, strict=True):
                some.append(table)
            advance(sum(int(looked[cut].sum()) for looked in each_looks_at))
            continue
        torch.cuda.empty_cache()  # behind the except: until there the error holds the tensors
    nothing = pa.table({"sequence": pa.array([], pa.int64())})
    return [
        stacked(some, f"the metric {metric.name!r}") if some else nothing
        for some, metric in zip(tables, metrics, strict=True)
    ]


def together(metrics: Sequence[Metric], lengths: npt.NDArray[np.int64]) -> list[tuple[Metric, ...]]:
    """Which metrics are measured with the same scores, in their order.

    Those that can be, if they look at nearly the same tokens: scores of many more tokens than a
    metric looks at would cost more than they save.
    """
    sharing = [metric for metric in metrics if uses_scores(metric)]
    looked = [int(looked_at(metric, lengths).sum()) for metric in sharing]
    if len(sharing) < 2 or min(looked) < SHARING_SHARE * max(looked):
        return [(metric,) for metric in metrics]
    alone = [(metric,) for metric in metrics if not uses_scores(metric)]
    return [tuple(sharing), *alone]


def _asked(metric: Metric, model: Model, batch: Batch) -> Any:
    """What the metric answers. Of its error the place is noted: `skip` shows no traceback."""
    try:
        return metric(model, batch)
    except Exception as error:
        place = _place(module_of(metric), error)
        if place is not None:
            error.add_note(f"({place})")
        raise


def _place(module: str, error: Exception) -> str | None:
    """The innermost line of a user's module on the way to an error, as "mine.py:7"."""
    if module.startswith("pythia_fast."):
        return None
    lines = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    return lines[-1] if lines else None


def _gather(
    dataset: TokenDataset, rows: Rows, lengths: npt.NDArray[np.int64], model: Model
) -> Batch:
    ids_BT = model.place_ids(dataset.gather(rows, columns=slice(0, int(lengths.max()))))
    rows = rows.view()
    rows.flags.writeable = False  # they are also those of the steps to come
    return Batch(ids_BT, sent(torch.from_numpy(lengths.copy()), model.device), rows)


def _versions(batch: Batch) -> list[int]:
    """These change where somebody writes to a tensor; those of inference mode do not tell."""
    scores = batch.scores
    parts = [] if scores is None else [getattr(scores, each.name) for each in fields(scores)]
    tensors = [batch.ids_BT, batch.lengths_B, *parts]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _table(metric: Metric, batch: Batch, columns: Any) -> pa.Table:
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns):
        raise ArgumentError(
            f"the metric {metric.name!r} gave {repr(columns)[:200]}, not a dict of named columns "
            "with one value for each sequence"
        )
    if not columns:
        raise ArgumentError(
            f"the metric {metric.name!r} gave an empty dict: give at least one named column, such "
            "as {'value': …} with one value for each sequence"
        )
    arrays: dict[str, pa.Array] = {"sequence": pa.array(batch.rows_B)}
    for name, column in columns.items():
        if name in RESERVED:
            raise ArgumentError(f"the metric {metric.name!r} may not name a column {name!r}")
        try:
            array = _arrow(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ArgumentError(
                f"the metric {metric.name!r} gave a column {name!r} that is not one value for each "
                f"of {len(batch.rows_B)} sequences: {error}"
            ) from error
        if len(array) != len(batch.rows_B):
            raise ArgumentError(
                f"the metric {metric.name!r} gave {len(array)} values of {name!r} for "
                f"{len(batch.rows_B)} sequences"
            )
        arrays[name] = array
    return pa.table(arrays)


def _arrow(column: Column) -> pa.Array:
    if isinstance(column, torch.Tensor):
        half = column.dtype in (torch.bfloat16, torch.float16)
        column = (column.float() if half else column).numpy(force=True)
    return column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(column)
