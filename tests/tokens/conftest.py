"""Token files as GPT-NeoX writes them, made here with struct and NumPy alone."""

import struct
from pathlib import Path

import numpy as np
import pytest

CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


def make_index(lengths, item, *, code=8, documents=(0,)):
    """The bytes of an .idx; every field by its place in the format."""
    sizes = np.asarray(lengths, dtype="<i4")
    pointers = (np.cumsum(sizes, dtype="<i8") - sizes) * item
    documents = np.asarray(documents, dtype="<i8")
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sizes), len(documents))
    return head + sizes.tobytes() + pointers.tobytes() + documents.tobytes()


def make_pair(prefix, rows, code=8, **options):
    dtype = np.dtype(CODES[code])
    rows = [np.asarray(row, dtype=dtype) for row in rows]
    Path(f"{prefix}.bin").write_bytes(b"".join(row.tobytes() for row in rows))
    lengths = [len(row) for row in rows]
    Path(f"{prefix}.idx").write_bytes(make_index(lengths, dtype.itemsize, code=code, **options))
    return prefix


@pytest.fixture(scope="session")
def token_files():
    """make_pair(prefix, rows, code=8, documents=(0,)) -> prefix, and what it is made of."""
    return make_pair


@pytest.fixture(scope="session")
def index_bytes():
    """make_index(lengths, item, code=8, documents=(0,)) -> bytes."""
    return make_index


@pytest.fixture(scope="session")
def tokenizer_json(tmp_path_factory):
    """The path of a byte-level tokenizer without merges: one token a byte of UTF-8."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path
