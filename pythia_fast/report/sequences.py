"""Which sequences a report shows, what became of each over the steps, and their losses by token.

A report stays small enough to open whatever was swept: so many sequences, so much text, so many
losses; what is left out is said in a note.

Legend: n sequences, S steps, L tokens of a sequence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pythia_fast.report.packed import losses, packed
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
_KINDS = {
    "sequence": pa.types.is_integer,
    "nll": pa.types.is_floating,
    "tokens": pa.types.is_integer,
    "memorized": pa.types.is_boolean,
    "score": pa.types.is_floating,
    "first_mismatch": pa.types.is_integer,
    "token_nll": pa.types.is_list,
}
"""What the columns hold that the page knows; others of the same name are a user's own."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run memorized: for every sequence that ever was, when.

    `rows_n` are the sequences, by their first step and then their number; `counts_S`, `gained_S`
    and `lost_S` how many were memorized at each step, newly and no more; a sequence that a step did
    not look at is neither.
    """

    rows_n: Rows
    counts_S: list[int | None]
    gained_S: list[int | None]
    lost_S: list[int | None]


def sequences_of(run: Run, texts: Texts, most_losses: int) -> dict[str, Any]:
    """The part of the page's data on a run's sequences."""
    steps = sorted({*run.table["step"].to_pylist(), *(gap.step for gap in run.gaps)})
    memory = _memory(run, steps)
    others = _first(run, steps, memory.rows_n)
    rows_n = np.concatenate([memory.rows_n[:MOST_MEMORIZED], others])
    looked_at = max(run.table["sequences"].to_pylist(), default=0)
    columns, notes = _columns(run, steps, rows_n), list(texts.notes)
    if looked_at > len(rows_n):
        notes.append(_left_out(looked_at, len(rows_n), len(memory.rows_n)))
    by_token = _by_token(run, steps, rows_n, most_losses, notes)
    whole = frozenset(by_token["index"] if by_token else ())
    shown = _texts(texts, rows_n, whole)
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


def _memory(run: Run, steps: Iterable[int]) -> Memory:
    first: dict[int, int] = {}
    counts: list[int | None] = []
    gained: list[int | None] = []
    lost: list[int | None] = []
    before: Rows | None = None
    for step, table in _each(run, steps, ("memorized",)):
        if table is None or not len(table):
            for values in (counts, gained, lost):
                values.append(None)
            continue
        looked = table["sequence"].to_numpy()
        now = table.filter(pc.fill_null(table["memorized"], fill_value=False))
        now = np.unique(now["sequence"].to_numpy())
        counts.append(len(now))
        known = np.array([], np.int64) if before is None else before
        gained.append(None if before is None else len(np.setdiff1d(now, known)))
        lost.append(
            None if before is None else len(np.setdiff1d(np.intersect1d(known, looked), now))
        )
        for row in np.setdiff1d(now, known).tolist():
            first.setdefault(row, step)
        before = now
    order = sorted(first, key=lambda row: (first[row], row))
    return Memory(np.array(order, np.int64), counts, gained, lost)


def _first(run: Run, steps: Iterable[int], known: Rows) -> Rows:
    """The first sequences of the first step that looked at any, without those `known`."""
    for _, table in _each(run, steps, ("sequence",)):
        if table is not None and len(table):
            return np.setdiff1d(table["sequence"].to_numpy(), known)[:MOST_OTHERS]
    return np.array([], np.int64)


def _columns(run: Run, steps: list[int], rows_n: Rows) -> dict[str, npt.NDArray[Any]]:
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
    for s, at, table in _placed(run, steps, ("nll", "tokens"), rows_n):
        with np.errstate(invalid="ignore", divide="ignore"):
            found["loss"][at, s] = _floats(table["nll"]) / _floats(table["tokens"])
    for s, at, table in _placed(run, steps, ("score",), rows_n):
        found["score"][at, s] = _floats(table["score"])
    for s, at, table in _placed(run, steps, ("memorized",), rows_n):
        found["memorized"][at, s] = _ints(table["memorized"])
    for s, at, table in _placed(run, steps, ("first_mismatch",), rows_n):
        found["mismatch"][at, s] = _ints(table["first_mismatch"])
    return found


def _placed(
    run: Run, steps: Iterable[int], names: Sequence[str], rows_n: Rows
) -> Iterator[tuple[int, npt.NDArray[np.intp], pa.Table]]:
    """The number of each step that has `names`, where its rows are in `rows_n`, and these rows."""
    order = np.argsort(rows_n)
    for s, (_, table) in enumerate(_each(run, steps, names)):
        if table is not None:
            some = _some(table, rows_n)
            at = np.searchsorted(rows_n, some["sequence"].to_numpy(), sorter=order)
            yield s, order[at], some


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
    lengths: dict[int, int] = {}
    for _, table in _each(run, reversed(steps), ("token_nll",)):
        some = None if table is None else _some(table, rows_n)
        if some is not None and len(some):
            counted = pc.list_value_length(some["token_nll"]).to_pylist()
            of_row = dict(zip(some["sequence"].to_pylist(), counted, strict=True))
            lengths = _fitting(rows_n, of_row, len(steps), most)
            break
    if not lengths:
        return None
    blocks = {row: np.full((len(steps), n), np.nan, np.float32) for row, n in lengths.items()}
    shown = np.array(list(lengths), np.int64)
    for s, _, table in _placed(run, steps, ("token_nll",), shown):
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


def _each(
    run: Run, steps: Iterable[int], names: Sequence[str]
) -> Iterator[tuple[int, pa.Table | None]]:
    """Each step and its `names`; None where it lacks one, or one is not what the page knows."""
    columns = run.columns(names)
    there = frozenset(columns.steps if tuple(columns.names) == tuple(names) else ())
    for step in steps:
        table = columns.of_step(step) if step in there else None
        if table is not None and not all(_KINDS[name](table[name].type) for name in names):
            table = None
        yield step, table


def _some(table: pa.Table, rows_n: Rows) -> pa.Table:
    """The rows of a step's table that are of these sequences."""
    return table.filter(pc.is_in(table["sequence"], pa.array(rows_n)))


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


def _texts(texts: Texts, rows_n: Rows, whole: frozenset[int]) -> dict[str, Any]:
    """Ids and pieces of each sequence: all tokens of the `whole` ones, else the first ones."""
    if texts.dataset is None:
        return {"ids": None, "pieces": None, "lengths": None}
    lengths_n = texts.dataset.lengths_of(rows_n).tolist()
    ids, pieces = [], []
    for i, (row, length) in enumerate(zip(rows_n.tolist(), lengths_n, strict=True)):
        most = length if i in whole else min(length, SHOWN_TOKENS)
        of_row = texts.dataset.gather([row], columns=slice(0, most))[0].tolist()
        ids.append(of_row)
        pieces.append(texts.pieces.of(of_row))
    return {"ids": ids, "pieces": pieces, "lengths": lengths_n}
