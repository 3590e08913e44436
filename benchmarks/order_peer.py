"""A training order by numpy's own shuffles and a plain loop in C++; and what either takes.

As a program, `order_peer.py WHO DOCUMENTS TOKENS LIBRARY` builds one order ("ours" or "numpy") of
random lengths and prints its seconds, its peak memory beyond the lengths, its arrays' bytes and
their digest as JSON.
"""

import ctypes
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from roofline import COMPILE

SOURCE = Path(__file__).with_name("order_peer.cpp")
SEED, SEQUENCE_LENGTH = 1234, 2048
Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def compile_peer(folder: Path) -> Path:
    """The loop as a shared library in `folder`."""
    import subprocess

    library = folder / "order_peer.so"
    subprocess.run([*COMPILE, "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
    return library


def random_lengths(documents: int, tokens: int) -> npt.NDArray[np.int32]:
    """Lengths of which some are 0 and some large, with about so many tokens in all."""
    random = np.random.default_rng(0)
    lengths = np.empty(documents, dtype=np.int32)
    for begin in range(0, documents, 1 << 20):
        part = lengths[begin : begin + (1 << 20)]
        part[:] = random.standard_exponential(len(part), dtype=np.float32) * (tokens / documents)
    return lengths


def numpy_order(lengths: npt.NDArray[np.int32], samples: int, library: Path) -> Arrays:
    """doc_idx, sample_idx and shuffle_idx."""
    tokens = int(lengths.sum(dtype=np.int64))
    epochs = -(-(samples * SEQUENCE_LENGTH + 1) // tokens)
    count = (epochs * tokens - 1) // SEQUENCE_LENGTH
    random = np.random.RandomState(SEED)
    doc_idx = np.tile(np.arange(len(lengths), dtype=np.int32), epochs)
    random.shuffle(doc_idx)
    sample_idx = np.empty((count + 1, 2), dtype=np.int64)
    cut = ctypes.CDLL(str(library)).cut
    cut.restype = None
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (lengths, doc_idx, sample_idx)]
    cut(*pointers[:2], ctypes.c_int64(SEQUENCE_LENGTH), ctypes.c_int64(count), pointers[2])
    shuffle_idx = np.arange(count, dtype=np.uint32)
    random.shuffle(shuffle_idx)
    return doc_idx, sample_idx, shuffle_idx


def our_order(lengths: npt.NDArray[np.int32], samples: int) -> Arrays:
    """The same by pythia_fast."""
    from pythia_fast.tokens.order import build

    order = build(lengths, seed=SEED, sequence_length=SEQUENCE_LENGTH, samples=samples)
    return order.doc_idx, order.sample_idx, order.shuffle_idx


def digest(arrays: Arrays) -> str:
    """Of the types and of every bit."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(f"{array.dtype} {array.shape}".encode())
        result.update(array.data)
    return result.hexdigest()


def _memory_bytes(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(which)


def main() -> None:
    """Build one order and say what it took."""
    who, documents, tokens, samples = sys.argv[1], *map(int, sys.argv[2:5])
    lengths = random_lengths(documents, tokens)
    our_order(np.ones(9, np.int32), 1)  # imports are not its memory
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _memory_bytes("VmRSS")
    started = time.perf_counter()
    if who == "ours":
        arrays = our_order(lengths, samples)
    else:
        arrays = numpy_order(lengths, samples, Path(sys.argv[5]))
    elapsed_s = time.perf_counter() - started
    peak_bytes = _memory_bytes("VmHWM") - before
    said = {
        "elapsed_s": elapsed_s,
        "peak_bytes": peak_bytes,
        "array_bytes": sum(array.nbytes for array in arrays),
        "samples": len(arrays[2]),
        "positions": len(arrays[0]),
        "digest": digest(arrays),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
