"""Rows as .npy files, [rows, L]: one for all, or one for each training step.

They are written block by block, so that memory does not grow with them, and whole or not at all.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from pythia_fast.errors import PythiaFastError, RunMismatchError
from pythia_fast.publish import (
    make_folder,
    published,
    remove_partials,
    require_plain,
    require_space,
    write_error,
    writing,
)
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens.ahead import ahead
from pythia_fast.tokens.steps import require_rows, rows_of_step

if TYPE_CHECKING:
    from pythia_fast.tokens.dataset import TokenDataset

LENGTHS_AT_ONCE = 1 << 16
_NEXT = "it was not written from this data in this way. Remove it, or write elsewhere"


class Matrix(NamedTuple):
    """What an .npy file is to hold: `rows` [rows, width] of `dtype`, behind `header`."""

    rows: range
    width: int
    dtype: np.dtype[Any]
    header: bytes

    @property
    def data_bytes(self) -> int:
        """The size of the file without its header."""
        return len(self.rows) * self.width * self.dtype.itemsize


def matrix_of(dataset: "TokenDataset", rows: range, dtype: npt.DTypeLike | None = None) -> Matrix:
    """What `save_rows` will write. `dtype` is by default the narrowest for all ids of the data."""
    width = 0
    for begin in range(0, len(rows), LENGTHS_AT_ONCE):
        some = dataset.lengths_of(rows[begin : begin + LENGTHS_AT_ONCE])
        width = max(width, int(some.max()))
    chosen = dataset.gather([], dtype=dataset.narrow_dtype if dtype is None else dtype).dtype
    header = io.BytesIO()
    npy.write_array_header_1_0(
        header,
        {
            "descr": npy.dtype_to_descr(chosen),
            "fortran_order": False,
            "shape": (len(rows), width),
        },
    )
    return Matrix(rows, width, chosen, header.getvalue())


def save_rows(dataset: "TokenDataset", matrix: Matrix, path: Path) -> Iterator[int]:
    """Write rows as one .npy, shorter ones padded right with 0, in place of an older file.

    Gives the number of rows of each block once it is written; the file is there when the iterator
    is at its end. WriteError if there is no room or the system refuses; ArgumentError for an id
    that does not fit the dtype. What kills left of earlier saves of this path is removed.
    """
    require_plain(path)
    with writing(path):
        remove_partials(path)
    require_space(path.parent, len(matrix.header) + matrix.data_bytes)
    with published(path) as file:
        file.write(matrix.header)
        for ids_nL in _blocks(dataset, matrix):
            file.write(ids_nL.data)
            yield len(ids_nL)


class SavedStep(NamedTuple):
    """One file of `save_steps`; `kept` if it was there already."""

    step: int
    path: Path
    kept: bool


def save_steps(
    dataset: "TokenDataset",
    steps: range,
    folder: Path,
    *,
    batch: int = SEQUENCES_PER_STEP,
    dtype: npt.DTypeLike | None = None,
) -> Iterator[SavedStep]:
    """Write what each training step saw as folder/step=000001.npy and so on, each [batch, L].

    A file that is there and holds just these rows is kept, so that the same call goes on where an
    earlier one was stopped. RowIndexError for steps that the data does not have; RunMismatchError
    for a file of another shape, dtype or content; else the errors of `save_rows`.
    """
    for step in steps[:: max(1, len(steps) - 1)]:  # the first and the last
        require_rows(rows_of_step(step, batch), len(dataset), batch, f"training step {step}")
    make_folder(folder)
    needed_bytes = 0
    there: set[int] = set()
    for step in steps:
        matrix = matrix_of(dataset, rows_of_step(step, batch), dtype)
        if _is_there(step_path(folder, step), matrix):
            if not there:  # before anything is written beside files of other data
                _require_same(dataset, matrix, step_path(folder, step))
            there.add(step)
        else:
            needed_bytes += len(matrix.header) + matrix.data_bytes
    require_space(folder, needed_bytes)
    for step in steps:
        path = step_path(folder, step)
        matrix = matrix_of(dataset, rows_of_step(step, batch), dtype)
        if step in there:
            _require_same(dataset, matrix, path)
        else:
            for _ in save_rows(dataset, matrix, path):
                pass
        yield SavedStep(step, path, step in there)


def step_path(folder: Path, step: int) -> Path:
    """The file of a step. Names sort as steps do, of which the suite has 143,000."""
    return folder / f"step={step:06d}.npy"


def _is_there(path: Path, matrix: Matrix) -> bool:
    """Whether a file is there, of this size, shape and dtype. RunMismatchError if of another."""
    require_plain(path)
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            data_bytes = path.stat().st_size - file.tell()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise write_error(path, error) from error
    except ValueError as error:
        raise RunMismatchError(f"{path} is no .npy ({error}): {_NEXT}") from error
    expected = (len(matrix.rows), matrix.width)
    if (shape, dtype, data_bytes) != (expected, matrix.dtype, matrix.data_bytes):
        raise RunMismatchError(
            f"{path} holds {data_bytes:,} bytes of {dtype} {list(shape)}, not {matrix.dtype} "
            f"{list(expected)}: {_NEXT}"
        )
    return True


def _require_same(dataset: "TokenDataset", matrix: Matrix, path: Path) -> None:
    """RunMismatchError unless the file, of the right size, holds the rows that it is to hold."""
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
            npy.read_array_header_1_0(file)
            same = all(
                file.read(ids_nL.nbytes) == ids_nL.tobytes() for ids_nL in _blocks(dataset, matrix)
            )
    except PythiaFastError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    if not same:
        raise RunMismatchError(
            f"{path} holds other ids than rows {matrix.rows.start:,} to {matrix.rows.stop - 1:,} "
            f"of {dataset.source}: {_NEXT}"
        )


def _blocks(dataset: "TokenDataset", matrix: Matrix) -> Iterator[npt.NDArray[Any]]:
    def read(rows_n: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        out = np.empty((len(rows_n), matrix.width), matrix.dtype)
        return dataset.gather(rows_n, out=out)

    return ahead(read, dataset.blocks(matrix.rows), 1)
