"""Parts of a run folder, all of them read and checked before anything is taken from them."""

import errno
import json
import logging
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_fast.errors import FormatError, ReadError
from pythia_fast.metrics import Memorization, MemorizationScore, Metric, Perplexity
from pythia_fast.publish import link, sync_folder, write_error, writing
from pythia_fast.runs.folder.parts import MENDED_BY, METADATA, check_origin
from pythia_fast.runs.plan import Rows, Unit

_OURS = (Perplexity, Memorization, MemorizationScore)
_log = logging.getLogger("pythia_fast")

Part = tuple[dict[str, Any], pa.Table]
"""Where a part's rows are from, and these rows."""


def checked_part(
    path: Path, run_hash: str, step: int, name: str, metric: Metric | None = None
) -> Part:
    """A part that belongs to this run, step and metric, and whose bytes are those once written.

    With a `metric` of this package its columns are those that it sums up. FormatError for a part
    that is damaged or another's; ReadError where the system refuses, of ENOENT if there is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadError.of(path, error) from error
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        origin = json.loads((file.schema_arrow.metadata or {})[METADATA])
        table = file.read()
    except MemoryError:  # which Arrow's own is too: the part may be good
        raise
    except (OSError, pa.ArrowException, KeyError, ValueError, RecursionError) as error:
        raise FormatError(path, f"no part of a run ({error}); {MENDED_BY}") from error
    check_origin(path, origin, run_hash, step, name)
    _check_columns(path, table, metric)
    return origin, table


def checked_unit(path: Path, run_hash: str, unit: Unit) -> dict[str, Any]:
    """Where a unit's result is from, once it is known to be that of its sequences.

    The errors of `checked_part`.
    """
    origin, table = checked_part(path, run_hash, unit.step, unit.metric.name, unit.metric)
    if not _is_of(table, unit.rows):
        raise FormatError(path, f"its rows are of other sequences than the plan's; {MENDED_BY}")
    return origin


def read_or_put_aside(path: Path, folder: Path, run_hash: str, unit: Unit) -> dict[str, Any] | None:
    """`checked_unit`, or None where the unit is to be computed, since its part is gone or damaged.

    A damaged one is moved into `folder` with a warning. ReadError, WriteError.
    """
    try:
        return checked_unit(path, run_hash, unit)
    except ReadError as error:
        if error.errno == errno.ENOENT:  # another process has put it aside
            return None
        raise
    except FormatError as error:
        damage = error
    aside = folder / f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
        sync_folder(folder)
        sync_folder(path.parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise write_error(aside, error) from error
    return _given_back(aside, path, run_hash, unit, damage)


def _given_back(
    aside: Path, path: Path, run_hash: str, unit: Unit, damage: FormatError
) -> dict[str, Any] | None:
    """None, unless another process had put a good part in place of the damaged one meanwhile."""
    try:
        origin = checked_unit(aside, run_hash, unit)
    except FormatError:
        reason = damage.reason.removesuffix(f"; {MENDED_BY}")
        _log.warning("%s: %s. It is kept as %s, and computed again", path, reason, aside)
        return None
    with writing(path):
        with suppress(FileExistsError):
            link(aside, path)
        aside.unlink(missing_ok=True)
    return origin


def _check_columns(path: Path, table: pa.Table, metric: Metric | None) -> None:
    names = table.column_names
    if names.count("sequence") != 1 or not pa.types.is_integer(table.schema.field("sequence").type):
        raise FormatError(path, f"it has no column of sequences; {MENDED_BY}")
    if not len(table) or not isinstance(metric, _OURS) or type(metric) not in _OURS:
        return  # which columns another's metric gives nobody knows, nor one's that is derived
    try:
        metric.summarize(table.schema.empty_table())
    except (KeyError, pa.ArrowException) as error:
        raise FormatError(
            path, f"its columns {', '.join(names)} are not those of {metric.name}; {MENDED_BY}"
        ) from error


def _is_of(table: pa.Table, rows: Rows) -> bool:
    return np.array_equal(table["sequence"].to_numpy(), rows)
