"""The safetensors reader against the library, and against files that lie."""

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from pythia_fast.core import File
from pythia_fast.errors import FormatError, TruncatedFileError
from pythia_fast.series import read_safetensors

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64),
]
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())


def some_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), max_size=6))
def test_every_range_holds_the_bytes_that_the_library_loads(
    tmp_path: Path, contents: list[tuple[tuple[int, ...], torch.dtype]]
) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {f"t{i}": some_tensor(*content, i) for i, content in enumerate(contents)}
    save_file(tensors, path, metadata={"format": "pt"})
    loaded = load_file(path)
    ranges = read_safetensors(File(path))
    assert ranges.keys() == loaded.keys()
    for name, tensor in loaded.items():
        found = ranges[name]
        assert found.shape == tuple(tensor.shape)
        assert found.file.read(found.offset, found.nbytes) == raw_bytes(tensor)


def test_dtypes_have_the_names_of_the_format(tmp_path: Path) -> None:
    kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    save_file({k: torch.ones(2, dtype=v) for k, v in kinds.items()}, tmp_path / "m")
    ranges = read_safetensors(File(tmp_path / "m"))
    assert {name: found.dtype for name, found in ranges.items()} == {k: k for k in kinds}


ONE = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
OTHER = {"dtype": "F16", "shape": [2, 2], "data_offsets": [8, 16]}
DATA = bytes(16)

ATTACKS: dict[str, tuple[object, bytes, str]] = {
    "no object": ([1, 2], b"", "does not begin"),
    "no json": (b"{nonsense", b"", "no valid JSON"),
    "no utf-8": (b'{"\xff": 1}', b"", "no valid JSON"),
    "a constant": (b'{"a": NaN}', b"", "no valid JSON"),
    "too deep": (b'{"a":' + b"[" * 100_000, b"", "no valid JSON"),
    "a long number": (b'{"a":' + b"9" * 5000 + b"}", b"", "no valid JSON"),
    "duplicate name": (
        b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(OTHER).encode() + b"}",
        DATA,
        "twice",
    ),
    "duplicate field": (
        b'{"a":{"dtype":"F16","shape":[4],"shape":[8],"data_offsets":[0,16]}}',
        DATA,
        "twice",
    ),
    "overlap": ({"a": ONE, "b": {**OTHER, "data_offsets": [6, 14]}}, DATA[:14], "overlaps"),
    "the same bytes twice": ({"a": ONE, "b": ONE}, DATA[:8], "overlaps"),
    "gap": ({"a": ONE, "b": {**OTHER, "data_offsets": [10, 18]}}, bytes(18), "gap"),
    "gap at the start": ({"b": OTHER}, DATA, "gap"),
    "data left over": ({"a": ONE}, DATA, "the last tensor ends here"),
    "data without tensors": ({}, DATA, "the last tensor ends here"),
    "data cut": ({"a": ONE, "b": OTHER}, DATA[:15], "which has 15 bytes"),
    "backwards": ({"a": {**ONE, "data_offsets": [8, 0]}}, DATA, "before it begins"),
    "negative offset": ({"a": {**ONE, "data_offsets": [-8, 0]}}, DATA, "no pair"),
    "a bool offset": ({"a": {**ONE, "data_offsets": [False, 8]}}, DATA, "no pair"),
    "a float offset": ({"a": {**ONE, "data_offsets": [0.0, 8]}}, DATA, "no pair"),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 8, 16]}}, DATA, "no pair"),
    "unknown dtype": ({"a": {**ONE, "dtype": "Q4"}}, DATA, "unknown dtype"),
    "dtype of a list": ({"a": {**ONE, "dtype": ["F16"]}}, DATA, "unknown dtype"),
    "wrong dtype": ({"a": {**ONE, "dtype": "F32"}}, DATA[:8], "not F32"),
    "wrong shape": ({"a": {**ONE, "shape": [2, 3]}}, DATA[:8], "not F16"),
    "negative shape": ({"a": {**ONE, "shape": [-2, -2]}}, DATA[:8], "no list of sizes"),
    "overflowing shape": ({"a": {**ONE, "shape": [2**33, 2**33, 4]}}, DATA[:8], "not F16"),
    "a huge size": ({"a": {**ONE, "shape": [2**64, 0]}}, DATA[:8], "no list of sizes"),
    "product wraps to fit": ({"a": {**ONE, "shape": [2**62 + 1, 4]}}, DATA[:8], "not F16"),
    "field missing": ({"a": {"dtype": "F16", "shape": [4]}}, DATA[:8], "is not {dtype"),
    "field too many": ({"a": {**ONE, "extra": 1}}, DATA[:8], "is not {dtype"),
    "entry no object": ({"a": 7}, b"", "is not {dtype"),
    "metadata no object": ({"__metadata__": [1], "a": ONE}, DATA[:8], "__metadata__"),
    "metadata of numbers": ({"__metadata__": {"x": 1}, "a": ONE}, DATA[:8], "__metadata__"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_header_that_lies_is_refused(files, attack: str) -> None:
    header, data, reason = ATTACKS[attack]
    with pytest.raises(FormatError, match=reason) as caught:
        read_safetensors(files.safetensors(header, data))
    assert caught.value.offset is not None


def test_a_header_over_25_mb_is_refused_before_it_is_read(files, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 25_000_001))
        file.truncate(100_000_000)
    with pytest.raises(FormatError, match="25000001 bytes"):
        read_safetensors(File(path))
    with pytest.raises(FormatError, match="18446744073709551615 bytes"):
        read_safetensors(files.open(b"\xff" * 20))


def test_a_file_cut_anywhere_is_truncated(files) -> None:
    whole = save({"a": torch.ones(3, 2), "b": torch.ones(5, dtype=torch.float16)})
    assert len(read_safetensors(files.open(whole))) == 2
    for length in range(len(whole)):
        with pytest.raises(TruncatedFileError):
            read_safetensors(files.open(whole[:length]))


def overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def test_flipped_bytes_give_a_typed_error_or_ranges_inside_the_file(tmp_path: Path) -> None:
    whole = save({f"layer.{i}": torch.ones(3, i + 1) for i in range(4)}, metadata={"k": "v"})
    header_bytes = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(20_240_501)
    path = tmp_path / "flipped"
    path.write_bytes(whole)
    refused = 0
    for _ in range(1500):
        flipped = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            flipped[rng.randrange(header_bytes)] = rng.randrange(256)
        overwrite(path, flipped)
        file = File(path)
        try:
            ranges = read_safetensors(file)
        except FormatError:
            refused += 1
        else:
            assert all(r.offset + r.nbytes <= file.size for r in ranges.values())
    assert refused > 1000
