"""Where causal masks are found in a file, by its directory alone."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.hub.masks import PROBE_BYTES, Mask, find_masks, probe


def mask_bytes(side: int) -> bytes:
    return np.tril(np.ones((side, side), bool)).tobytes()


def probed(name: str, data: bytes) -> bytes:
    wanted = probe(name, len(data))
    assert wanted is not None
    return data[slice(*wanted)]


@pytest.mark.parametrize("side", [256, 300, 1024, 2048])
def test_the_parts_of_a_mask(side: int) -> None:
    mask, data = Mask(77, side), mask_bytes(side)
    at = 77
    for offset, part in mask.parts():
        assert offset == at
        assert part == data[at - 77 : at - 77 + len(part)]
        at += len(part)
    assert at == mask.end == 77 + side**2


@pytest.mark.parametrize("sides", [(2048,), (512, 300, 2048, 512)])
def test_masks_of_a_torch_file_lie_where_they_are(sides: tuple[int, ...]) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for number, side in enumerate(sides):
        tensors[f"layers.{number}.bias"] = torch.ones(side, side, dtype=torch.bool).tril()
        tensors[f"layers.{number}.weight"] = torch.randn(100 + number, 301).half()
        tensors[f"layers.{number}.other"] = torch.zeros(side, side, dtype=torch.bool)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    data = buffer.getvalue()
    found = find_masks("pytorch_model.bin", len(data), probed("pytorch_model.bin", data))
    assert [mask.side for mask in found] == list(sides)
    for mask in found:
        assert data[mask.offset : mask.end] == mask_bytes(mask.side)


def test_small_or_unknown_files_are_not_looked_at() -> None:
    assert probe("x.bin", 1000) is None
    assert probe("x.json", 10**9) is None
    assert probe("x.bin", 10**9) == (10**9 - PROBE_BYTES, 10**9)
    assert probe("x.safetensors", 10**9) == (0, PROBE_BYTES)


def safetensors(entries: object) -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (struct.pack("<Q", len(raw)) + raw).ljust(2**19, b"\0")


def test_masks_of_a_safetensors_file() -> None:
    def entry(dtype: str, shape: list[int], begin: int, nbytes: int) -> dict[str, object]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + nbytes]}

    entries = {
        "a.attention.bias": entry("BOOL", [1, 1, 256, 256], 0, 2**16),
        "b.attention.bias": entry("U8", [1, 1, 256, 256], 2**16 + 7, 2**16),
        "c.attention.bias": entry("F32", [1, 1, 128, 128], 2**17 + 9, 2**16),
        "d.attention.bias": entry("BOOL", [1, 256, 256], 3 * 2**16 + 9, 2**16),
        "e.other": entry("BOOL", [1, 1, 256, 256], 4 * 2**16 + 9, 2**16),
    }
    data = safetensors(entries)
    start = 8 + len(json.dumps(entries))
    found = find_masks("x.safetensors", len(data), data[:PROBE_BYTES])
    assert found == (Mask(start, 256), Mask(start + 2**16 + 7, 256))


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        [],
        7,
        {"attention.bias": 7},
        {"attention.bias": {"dtype": [], "shape": 0, "data_offsets": [0, 2**16]}},
        {"attention.bias": {"dtype": "U8", "shape": [1, 1, 256, 256], "data_offsets": 5}},
        {"attention.bias": {"dtype": "U8", "shape": [1, 1, 256, 256], "data_offsets": ["a", 5]}},
        {"attention.bias": {"dtype": "U8", "shape": [1, 1, 256, 256], "data_offsets": [-9, 65527]}},
        {
            "attention.bias": {
                "dtype": "U8",
                "shape": [1, 1, 256, 256],
                "data_offsets": [2**60, 2**60 + 2**16],
            }
        },
    ],
)
def test_headers_that_make_no_sense_have_no_masks(entries: object) -> None:
    data = safetensors(entries)
    assert find_masks("x.safetensors", len(data), data[:PROBE_BYTES]) == ()


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_end_of_a_zip(noise: bytes, at: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data/0", mask_bytes(256))
    data = bytearray(bytes(PROBE_BYTES) + buffer.getvalue())
    at = max(0, len(data) - 400 + at - len(noise))
    data[at : at + len(noise)] = noise
    for mask in find_masks("x.bin", len(data), bytes(data[-PROBE_BYTES:])):
        assert 0 <= mask.offset <= mask.end <= len(data)


def test_a_checksum_of_something_else_is_no_mask() -> None:
    other = bytes(2**16)
    assert zlib.crc32(other) != zlib.crc32(mask_bytes(256))
    buffer = io.BytesIO(bytes(PROBE_BYTES))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("a/data/0", other)
        archive.writestr("a/data/1", mask_bytes(256))
    data = buffer.getvalue()
    assert len(find_masks("x.bin", len(data), data[-PROBE_BYTES:])) == 1
