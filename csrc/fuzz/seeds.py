"""Write what the fuzzer begins with: whole indexes of every kind, small and as they should be."""

import itertools
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2}
LENGTHS = ((), (0,), (3,), (5, 0, 7, 1), (2049,) * 9, tuple(range(40)))
DOCUMENTS = ((), (0,), (0, 0, 1))


def index(code: int, lengths: Sequence[int], documents: Sequence[int]) -> bytes:
    """The bytes of an .idx."""
    ends = list(itertools.accumulate(lengths, initial=0))
    pointers = [end * ITEM_BYTES[code] for end in ends[:-1]]
    return (
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, code, len(lengths), len(documents))
        + struct.pack(f"<{len(lengths)}i", *lengths)
        + struct.pack(f"<{len(pointers)}q{len(documents)}q", *pointers, *documents)
    )


def main(folder: Path) -> None:
    """One file a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(itertools.product(ITEM_BYTES, LENGTHS, DOCUMENTS)):
        (folder / f"{number:03}").write_bytes(index(*seed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
