"""More than 2^31 and 2^32 bytes, tokens and rows, in files of holes: no size has 32 bits only."""

import struct

import numpy as np
import pytest

from pythia_fast.core import TokenStore
from pythia_fast.errors import TokenRangeError
from pythia_fast.tokens import TokenDataset

LONG = 2**31 - 1  # tokens, the longest that the format holds
SHARD = 3_000_000_001  # bytes, so that ids lie across every second border
DTYPES = {1: "<u1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


def write_holes(path, nbytes, marks):
    with path.open("wb") as file:
        file.truncate(nbytes)
        for offset, content in marks:
            if 0 <= offset < nbytes:
                file.seek(offset)
                file.write(content[: nbytes - offset])


def positions(lengths, item):
    """Ids to mark: the ends of all rows, and those around 2^31 and 2^32, of bytes and of ids."""
    ends = np.cumsum(lengths, dtype=np.int64)
    around = [2**31, 2**32, 2**31 // item, 2**32 // item, SHARD // item, 2 * SHARD // item]
    found = {p + d for p in [0, *ends.tolist(), *around] for d in (-2, -1, 0, 1)}
    return sorted(p for p in found if 0 <= p < ends[-1])


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_rows_at_the_far_end(tmp_path, index_bytes, code, sharded):
    dtype = np.dtype(DTYPES[code])
    item = dtype.itemsize
    lengths = [LONG, 3, LONG, 7, 2**30 + 5, 11]  # 5.4e9 ids
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    marked = positions(lengths, item)
    values = {p: i % 120 + 1 for i, p in enumerate(marked)}
    total = int(starts[-1]) * item
    assert starts[-1] > 2**32
    (tmp_path / "big.idx").write_bytes(index_bytes(lengths, item, code=code))
    content = [(p * item, dtype.type(v).tobytes()) for p, v in values.items()]
    if sharded:
        number = -(-total // SHARD)
        for i in range(number):
            begin = i * SHARD
            # An id that begins in the shard before: its last bytes are this one's first.
            here = [(at - begin, ids) for at, ids in content if begin - item < at < begin + SHARD]
            here = [(max(at, 0), ids[max(0, -at) :]) for at, ids in here]
            path = tmp_path / f"big-{i:05}-of-{number - 1:05}.bin"
            write_holes(path, min(SHARD, total - begin), here)
    else:
        write_holes(tmp_path / "big.bin", total, content)
    data = TokenDataset(tmp_path)
    assert data.lengths.tolist() == lengths
    for position in values:
        row = int(np.searchsorted(starts, position, side="right")) - 1
        column = position - int(starts[row])
        got = data.gather([row], columns=slice(max(0, column - 1), column + 2))[0]
        want = [values.get(p, 0) for p in range(position - 1, position + 2)]
        want = want[1 if column == 0 else 0 : 2 if column == lengths[row] - 1 else 3]
        assert got.tolist() == want, (position, row, column)
    short = data[[5, 3, 1]]
    for got, row in zip(short, (5, 3, 1), strict=True):
        want = [values.get(p, 0) for p in range(starts[row], starts[row + 1])]
        assert got[: len(want)].tolist() == want
    top = max(values[p] for p in range(starts[5], starts[6]) if p in values)
    with pytest.raises(TokenRangeError) as caught:
        data.check_ids(top, [5])
    assert values[starts[5] + caught.value.offset] == top


def test_more_rows_than_32_bits_count(tmp_path):
    """An index of 52 GB of holes: all rows are empty but the last two."""
    rows = 2**32 + 5
    sizes, pointers = 34, 34 + 4 * rows
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, rows, 1)
    marks = [
        (0, head),
        (sizes + 4 * (rows - 2), struct.pack("<ii", 3, 2)),
        (pointers + 8 * (rows - 1), struct.pack("<q", 6)),
    ]
    write_holes(tmp_path / "many.idx", pointers + 8 * rows + 8, marks)
    (tmp_path / "many.bin").write_bytes(np.arange(1, 6, dtype="<u2").tobytes())
    store = TokenStore(tmp_path / "many.idx", tmp_path / "many.bin")
    assert len(store) == rows
    assert store.bin_bytes == 10
    index = np.array([rows - 1, 2**31, rows - 2, 2**32, 0, rows - 3])
    out = np.empty((6, 3), dtype=np.int64)
    store.gather(index, 0, 3, out, 2)
    assert out.tolist() == [[4, 5, 0], [0] * 3, [1, 2, 3], [0] * 3, [0] * 3, [0] * 3]
    data = TokenDataset(tmp_path / "many")
    assert len(data) == rows
    assert data[-1].tolist() == [4, 5]
    assert data[rows - 2].tolist() == [1, 2, 3]
