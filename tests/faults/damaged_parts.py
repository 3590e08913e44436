"""What may become of a part of a run folder: ways to damage one, given by its path."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Damage = Callable[[Path], None]


def cut(part: Path) -> None:
    """Half of it is there."""
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def empty(part: Path) -> None:
    part.write_bytes(b"")


def flipped(part: Path) -> None:
    """The rows are wrong, but not what it says of itself."""
    data = bytearray(part.read_bytes())
    for offset in range(4, 80):
        data[offset] ^= 0xFF
    part.write_bytes(data)


def of_another_writer(part: Path) -> None:
    """A sound file of Parquet that no sweep has written."""
    pq.write_table(pa.table({"a": [1, 2]}), part)


def of_other_columns(part: Path) -> None:
    """It says of itself what a part says, but its rows are of something else."""
    table = pq.read_table(part)
    rows = table.rename_columns([f"{name}s" for name in table.column_names])
    pq.write_table(rows.replace_schema_metadata(table.schema.metadata), part)


def without_a_column(part: Path) -> None:
    """There are sequences, but not all that is summed up."""
    pq.write_table(pq.read_table(part).drop_columns("nll"), part)


def of_another_kind(part: Path) -> None:
    """Texts where numbers are summed up."""
    table = pq.read_table(part)
    at = table.schema.get_field_index("nll")
    texts = pa.array(["x"] * len(table))
    metadata = table.schema.metadata
    pq.write_table(table.set_column(at, "nll", texts).replace_schema_metadata(metadata), part)


def of_another_run(part: Path) -> None:
    _saying(part, run="0" * 64)


def of_another_step(part: Path) -> None:
    _saying(part, step=1)


def _saying(part: Path, **other: object) -> None:
    table = pq.read_table(part)
    origin = json.loads(table.schema.metadata[b"pythia_fast"]) | other
    metadata = {b"pythia_fast": json.dumps(origin).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), part)


DAMAGES: tuple[Damage, ...] = (
    *(cut, empty, flipped, of_another_writer, of_other_columns),
    *(without_a_column, of_another_kind, of_another_run, of_another_step),
)
