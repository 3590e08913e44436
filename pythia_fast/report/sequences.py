"""Which sequences a report shows, what became of each over the steps, and their losses by token.

A report stays small enough to open whatever was swept: so many sequences, so much text, so many
losses; what is left out is said in a note.

Legend: n sequences, S steps, L tokens of a sequence.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.errors import PythiaFastError
from pythia_fast.report.memory import Rows, memory_of, without
from pythia_fast.report.packed import losses, packed
from pythia_fast.report.read import Reading
from pythia_fast.report.run import Run
from pythia_fast.report.texts import Texts

MOST_MEMORIZED = 400
"""Memorized sequences of a run that are listed."""
MOST_OTHERS = 40
"""Sequences of a run that are listed though never memorized, the first ones."""
SHOWN_TOKENS = 96
"""Tokens of text of a sequence whose losses are not shown."""
MOST_LOSSES = 3_000_000
"""Losses by token in a whole report, of two bytes each."""


def sequences_of(
    run: Run, texts: Texts, most_losses: int, memorizing: str | None = None
) -> dict[str, Any]:
    """The part of the page's data on a run's sequences; `memorizing` is the metric it is about."""
    steps = sorted({*run.table["step"].to_pylist(), *(gap.step for gap in run.gaps)})
    # Where that metric is missing the columns of these names are another one's.
    without = [gap.step for gap in run.gaps if gap.metric == memorizing]
    decided = Reading(run, ("memorized",), without)
    mismatches = Reading(run, ("first_mismatch",), without)
    memory = memory_of(decided, steps)
    others = _first(run, steps, memory.rows_n)
    rows_n = np.concatenate([memory.rows_n[:MOST_MEMORIZED], others])
    looked_at = max(run.table["sequences"].to_pylist(), default=0)
    readings = (Reading(run, ("nll", "tokens")), Reading(run, ("score",)), decided, mismatches)
    columns, notes = _columns(readings, steps, rows_n), list(texts.notes)
    if looked_at > len(rows_n):
        notes.append(_left_out(looked_at, len(rows_n), len(memory.rows_n)))
    by_token = _by_token(run, steps, rows_n, most_losses, notes)
    whole = frozenset(by_token["index"] if by_token else ())
    shown = _texts(texts, rows_n, whole, notes)
    return {
        "steps": steps,
        "looked_at": looked_at,
        "memorized_ever": len(memory.rows_n),
        "memorized": {
            "count": memory.counts_S,
            "gained": memory.gained_S,
            "lost": memory.lost_S,
        },
        "rows": rows_n.tolist(),
        "columns": {name: packed(values_nS) for name, values_nS in columns.items()},
        "losses": by_token,
        "notes": notes,
        **shown,
    }


def _left_out(looked_at: int, listed: int, memorized: int) -> str:
    which = f"the first {listed - min(memorized, MOST_MEMORIZED)} others"
    if memorized > MOST_MEMORIZED:
        which = f"the {MOST_MEMORIZED} of {memorized:,} memorized that were so first, and {which}"
    elif memorized:
        which = f"those memorized at some step, and {which}"
    else:
        which = f"the first {listed}"
    return f"Of {looked_at:,} sequences {listed:,} are listed: {which}."


def _first(run: Run, steps: Iterable[int], known: Rows) -> Rows:
    """The first sequences of the first step that looked at any, without those `known`."""
    known = np.sort(known)
    for step in steps:
        looked_at, found = False, np.array([], np.int64)
        for table in run.columns(("sequence",), (step,)).sequences():
            looked_at |= bool(len(table))
            rows = table["sequence"].to_numpy()
            if len(found) == MOST_OTHERS:
                rows = rows[rows < found[-1]]
            found = np.union1d(found, without(rows, known))[:MOST_OTHERS]
        if looked_at:
            return found
    return np.array([], np.int64)


def _columns(
    readings: Iterable[Reading], steps: list[int], rows_n: Rows
) -> dict[str, npt.NDArray[Any]]:
    """What is known of each sequence at each step, [n, S] each.

    `loss` in nats per token and `score`, NaN where unknown; `memorized` 1, 0 or -1 where unknown;
    `mismatch`, the position of the first wrong token of the continuation, -1 for none or unknown.
    """
    shape = (len(rows_n), len(steps))
    found: dict[str, npt.NDArray[Any]] = {
        "loss": np.full(shape, np.nan, np.float32),
        "score": np.full(shape, np.nan, np.float32),
        "memorized": np.full(shape, -1, np.int8),
        "mismatch": np.full(shape, -1, np.int32),
    }
    order = np.argsort(rows_n)
    for s, step in enumerate(steps):
        for reading in readings:
            for table in reading.some(step, rows_n):
                at = order[np.searchsorted(rows_n, table["sequence"].to_numpy(), sorter=order)]
                for name, values in _values(table).items():
                    found[name][at, s] = values
    return found


def _values(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """The page's numbers of a shard, as far as its columns have them."""
    names = set(table.column_names)
    found: dict[str, npt.NDArray[Any]] = {}
    if {"nll", "tokens"} <= names:
        with np.errstate(invalid="ignore", divide="ignore"):
            found["loss"] = _floats(table["nll"]) / _floats(table["tokens"])
    if "score" in names:
        found["score"] = _floats(table["score"])
    if "memorized" in names:
        found["memorized"] = _ints(table["memorized"])
    if "first_mismatch" in names:
        found["mismatch"] = _ints(table["first_mismatch"])
    return found


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def _ints(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = pc.fill_null(column.cast(pa.int64()), -1).to_numpy()
    return values


def _by_token(
    run: Run, steps: list[int], rows_n: Rows, most: int, notes: list[str]
) -> Mapping[str, Any] | None:
    """The losses by token of the sequences in front, as many as fit; None if there are none.

    `index` says which of the rows they are. Of a sequence with L losses `data` holds [S, L], one
    sequence after the other.
    """
    reading = Reading(run, ("token_nll",))
    lengths: dict[int, int] = {}
    for step in reversed(steps):
        of_row: dict[int, int | None] = {}
        for table in reading.some(step, rows_n):
            if "token_nll" in table.column_names:
                counted = pc.list_value_length(table["token_nll"]).to_pylist()
                of_row |= zip(table["sequence"].to_pylist(), counted, strict=True)
        if of_row:
            lengths = _fitting(rows_n, of_row, len(steps), most)
            break
    if not lengths:
        return None
    blocks = {row: np.full((len(steps), n), np.nan, np.float32) for row, n in lengths.items()}
    for s, step in enumerate(steps):
        for table in reading.some(step, np.array(list(lengths), np.int64)):
            if "token_nll" not in table.column_names:
                continue
            for row, values in zip(table["sequence"].to_pylist(), table["token_nll"], strict=True):
                if values.is_valid and len(values.values) == lengths[row]:
                    blocks[row][s] = values.values.to_numpy(zero_copy_only=False)
    if len(lengths) < len(rows_n):
        notes.append(
            f"Losses by token are shown of {len(lengths):,} of these sequences, so that the page "
            "stays small; the run folder has all of them."
        )
    at = {row: i for i, row in enumerate(rows_n.tolist())}
    data = np.concatenate([losses(block_SL).reshape(-1) for block_SL in blocks.values()])
    return {
        "index": [at[row] for row in lengths],
        "lengths": list(lengths.values()),
        **packed(data),
    }


def _fitting(
    rows_n: Rows, counted: Mapping[int, int | None], steps: int, most: int
) -> dict[int, int]:
    """The first sequences whose losses fit, at least one, with how many each has."""
    lengths: dict[int, int] = {}
    total = 0
    for row in rows_n.tolist():
        length = counted.get(row)
        if length is None:
            continue
        total += steps * length
        if lengths and total > most:
            break
        lengths[row] = length
    return lengths


def _texts(texts: Texts, rows_n: Rows, whole: frozenset[int], notes: list[str]) -> dict[str, Any]:
    """Ids and pieces of each sequence: all tokens of the `whole` ones, else the first ones."""
    if texts.dataset is None:
        return {"ids": None, "pieces": None, "lengths": None}
    try:
        lengths_n = texts.dataset.lengths_of(rows_n).tolist()
        widths: dict[int, list[int]] = {}  # rows of one width in one call: on the Hub one request
        for i, length in enumerate(lengths_n):
            width = length if i in whole else min(length, SHOWN_TOKENS)
            widths.setdefault(width, []).append(i)
        ids: list[list[int]] = [[] for _ in lengths_n]
        for width, places in widths.items():
            found = texts.dataset.gather(rows_n[places], columns=slice(0, width)).tolist()
            for i, of_row in zip(places, found, strict=True):
                ids[i] = of_row
    except PythiaFastError as error:
        notes.append(f"The texts are missing: {texts.dataset.source} cannot be read: {error}")
        return {"ids": None, "pieces": None, "lengths": None}
    return {"ids": ids, "pieces": [texts.pieces.of(each) for each in ids], "lengths": lengths_n}
