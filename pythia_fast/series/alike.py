"""Steps of a folder compared by the bytes that their weights are made of, without loading them."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

from pythia_fast.series.checkpoint import HASHED_AT_ONCE, CheckpointFile
from pythia_fast.series.parts import pieces_of
from pythia_fast.series.tensors import TensorRange

SAMPLES, SAMPLE_BYTES = 8, 2**14
SMALL = 4
"""So many of the last small tensors, as biases and norms, are looked at whole."""


def outline(files: Iterable[CheckpointFile], tensors: Sequence[TensorRange]) -> str:
    """A digest of names and sizes of files, of what the tensors are, and of samples of their bytes.

    The samples lie at equal distances in all bytes of the tensors; to them come the last few small
    tensors, which may be all that is trained. Where it differs the weights are others, or lie in
    other files. ReadError.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.size}\n".encode())
    for tensor in tensors:
        digest.update(_kind(tensor))
    for tensor in [each for each in tensors if each.nbytes <= SAMPLE_BYTES][-SMALL:]:
        digest.update(tensor.file.read(tensor.offset, tensor.nbytes))
    ends = list(accumulate(tensor.nbytes for tensor in tensors))
    for number in range(SAMPLES):
        place = ends[-1] * (2 * number + 1) // (2 * SAMPLES)
        index = bisect_right(ends, place)
        tensor = tensors[index]
        last = max(tensor.nbytes - SAMPLE_BYTES, 0)
        begin = min(place - (ends[index] - tensor.nbytes), last)
        nbytes = min(SAMPLE_BYTES, tensor.nbytes)
        digest.update(tensor.file.read(tensor.offset + begin, nbytes))
    return digest.hexdigest()


def parts_digest(tensors: Sequence[TensorRange]) -> str:
    """The sha256, in hex, of what the tensors are and of all their bytes. ReadError."""
    with ThreadPoolExecutor(HASHED_AT_ONCE, "pythia_fast-hash") as pool:
        digest = hashlib.sha256()
        for tensor, of_bytes in zip(tensors, pool.map(_sha256, tensors), strict=True):
            digest.update(_kind(tensor) + of_bytes)
    return digest.hexdigest()


def _kind(tensor: TensorRange) -> bytes:
    return f"{tensor.name} {tensor.dtype} {list(tensor.shape)}\n".encode()


def _sha256(tensor: TensorRange) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces_of(tensor):
        digest.update(piece)
    return digest.digest()
