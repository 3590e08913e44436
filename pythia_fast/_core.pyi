"""Types of the compiled module (csrc/bindings*.cpp); import its names from `pythia_fast.core`."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy.typing as npt
from typing_extensions import Buffer

# NumPy's arrays are buffers, but say so to type checkers only from Python 3.12 on.
_Memory: TypeAlias = Buffer | npt.NDArray[Any]

class PackedWeight:
    """A matrix as the products of one CpuEngine read it: `CpuEngine.pack` makes one."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class CpuEngine:
    """The CPU kernels of one arithmetic and instruction set; `pythia_fast.kernels.cpu` calls it."""

    def __init__(self, arithmetic: str, *, instructions: str | None = None) -> None: ...
    @property
    def planes(self) -> int: ...
    @property
    def element_bytes(self) -> int: ...
    def embed(
        self, table: _Memory, ids: _Memory, x: _Memory, panels: int, threads: int
    ) -> None: ...
    def pack(
        self,
        matrix: _Memory,
        threads: int,
        *,
        into: PackedWeight | None = None,
        features: int = 0,
        rotary: int = 0,
    ) -> PackedWeight: ...
    def pick(self, matrix: _Memory, rows: _Memory, out: _Memory, threads: int) -> None: ...
    def norm(
        self,
        x: _Memory,
        epsilon: float,
        weights: Sequence[_Memory],
        biases: Sequence[_Memory],
        outs: Sequence[_Memory],
        features: int,
        threads: int,
    ) -> None: ...
    def heads(
        self,
        x: _Memory,
        weight: _Memory | PackedWeight,
        bias: _Memory,
        cosines: _Memory,
        sines: _Memory,
        rotary: int,
        positions: int,
        queries: _Memory,
        keys: _Memory,
        values: _Memory,
        shape: Sequence[int],
        threads: int,
        *,
        each_its_own: bool = False,
    ) -> None: ...
    def attention(
        self,
        queries: _Memory,
        keys: _Memory,
        values: _Memory,
        shape: Sequence[int],
        out: _Memory,
        out_rows: int,
        threads: int,
        *,
        ends: _Memory | None = None,
    ) -> None: ...
    def mlp(
        self,
        x: _Memory,
        weight: _Memory | PackedWeight,
        bias: _Memory,
        gelu: str,
        out: _Memory,
        out_rows: int,
        out_row: int,
        threads: int,
    ) -> None: ...
    def residual(
        self, a: _Memory, weight: _Memory | PackedWeight, bias: _Memory, x: _Memory, threads: int
    ) -> None: ...
    def project(
        self,
        x: _Memory,
        weight: _Memory | PackedWeight,
        bias: _Memory | None,
        to: _Memory,
        threads: int,
    ) -> None: ...
    def decode(
        self,
        qkv: _Memory,
        cosines: _Memory,
        sines: _Memory,
        rotary: int,
        positions: int,
        position: int,
        keys: _Memory,
        values: _Memory,
        shape: Sequence[int],
        out: _Memory,
        out_rows: int,
        threads: int,
    ) -> None: ...
    def unpack(self, x: _Memory, to: _Memory, panels: int, features: int, threads: int) -> None: ...
    def scores(
        self,
        x: _Memory,
        weight: _Memory | PackedWeight,
        targets: _Memory,
        tokens: int,
        nll: _Memory,
        logsumexp: _Memory | None,
        target_logit: _Memory | None,
        argmax: _Memory | None,
        margin: _Memory | None,
        threads: int,
    ) -> None: ...

class File:
    """A regular file, open for reading: exact reads, shared freely among threads."""

    def __init__(self, path: str | PathLike[str]) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    def fileno(self) -> int: ...
    def read(self, offset: int, nbytes: int) -> bytes: ...

class Read:
    """One tensor's way from a file into memory."""

    def __init__(
        self,
        file: File,
        offset: int,
        dtype: str,
        rows: int,
        columns: int,
        destination_offset: int,
        destination_dtype: str,
        destination_row_bytes: int,
    ) -> None: ...

def read_tensors(
    reads: Sequence[Read],
    destination: _Memory,
    threads: int,
    *,
    instructions: str | None = None,
) -> list[int]: ...
def instruction_sets() -> list[str]: ...

class TokenStore:
    """Rows of token ids, read-only: an .idx and its .bin or shards, mapped, or memory."""

    def __init__(
        self,
        index: str | PathLike[str],
        bins: str | PathLike[str] | Sequence[str | PathLike[str]],
        check: str | None = None,
    ) -> None: ...
    @staticmethod
    def in_memory(ids: _Memory, bounds: _Memory) -> TokenStore: ...
    def __len__(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def documents(self) -> int | None: ...
    @property
    def bin_bytes(self) -> int: ...
    def verify(self, threads: int) -> None: ...
    def lengths(self, rows: _Memory, out: _Memory) -> None: ...
    def locate(self, rows: _Memory, offsets: _Memory, lengths: _Memory) -> None: ...
    def gather(self, rows: _Memory, start: int, stop: int, out: _Memory, threads: int) -> None: ...
    def find_outside(
        self, rows: _Memory, limit: int, threads: int
    ) -> tuple[int, int, int] | None: ...

class LegacyRandom:
    """The numbers of numpy.random.RandomState(seed), for shuffles."""

    def __init__(self, seed: int) -> None: ...
    def shuffle(self, x: _Memory, begin: int, end: int, threads: int) -> None: ...
    def draw(self, first: int, out: _Memory) -> None: ...

class Cutter:
    """Cuts documents into samples that overlap by one token."""

    def __init__(self, lengths: _Memory, doc_idx: _Memory, sequence_length: int) -> None: ...
    @property
    def position(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    def write(self, sample_idx: _Memory, documents: int, threads: int) -> None: ...
    def compare(self, sample_idx: _Memory, documents: int, threads: int) -> None: ...

class OrderedStore:
    """A TokenStore's rows as the samples that training sees, one a row."""

    def __init__(
        self,
        documents: TokenStore,
        doc_idx: _Memory,
        sample_idx: _Memory,
        shuffle_idx: _Memory,
        sequence_length: int,
        files: Sequence[str | PathLike[str]],
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def documents(self) -> None: ...
    @property
    def bin_bytes(self) -> int: ...
    def verify(self, threads: int) -> None: ...
    def lengths(self, rows: _Memory, out: _Memory) -> None: ...
    def gather(self, rows: _Memory, start: int, stop: int, out: _Memory, threads: int) -> None: ...
    def find_outside(
        self, rows: _Memory, limit: int, threads: int
    ) -> tuple[int, int, int] | None: ...

class TermCounter:
    """Counts how often many sequences of ids occur, in one pass."""

    def __init__(
        self,
        ids: _Memory,
        bounds: _Memory,
        left: _Memory,
        right: _Memory,
        begins: _Memory,
        ends: _Memory,
    ) -> None: ...
    def __len__(self) -> int: ...
    def count(self, ids: _Memory, lengths: _Memory, counts: _Memory, threads: int) -> None: ...

def sum_lengths(lengths: _Memory, threads: int) -> int: ...
def check_sample_idx(
    sample_idx: _Memory, positions: int, sequence_length: int, threads: int
) -> None: ...
def check_shuffle_idx(shuffle_idx: _Memory, threads: int) -> None: ...
def highest_document(doc_idx: _Memory) -> int: ...
def check_doc_idx(doc_idx: _Memory, documents: int, threads: int) -> None: ...
