"""Builders of hostile files, byte by byte."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pythia_fast.core import File


class Pickles:
    """An assembler for the pickles of torch.save."""

    ordered_dict = b"ccollections\nOrderedDict\n)R"

    def text(self, content: str) -> bytes:
        raw = content.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def integer(self, value: int) -> bytes:
        return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

    def pack(self, *items: bytes) -> bytes:
        return b"(" + b"".join(items) + b"t"

    def storage(self, elements: int, *, key: str = "0", kind: str = "HalfStorage") -> bytes:
        names = [self.text("storage"), b"ctorch\n" + kind.encode() + b"\n"]
        rest = [self.text(key), self.text("cpu"), self.integer(elements)]
        return self.pack(*names, *rest) + b"Q"

    def tensor(
        self,
        shape: tuple[int, ...] = (2, 3),
        strides: tuple[int, ...] = (3, 1),
        *,
        start: int = 0,
        elements: int = 6,
        key: str = "0",
        kind: str = "HalfStorage",
    ) -> bytes:
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n"
            + self.pack(
                self.storage(elements, key=key, kind=kind),
                self.integer(start),
                self.pack(*map(self.integer, shape)),
                self.pack(*map(self.integer, strides)),
                b"\x89",
                self.ordered_dict,
            )
            + b"R"
        )

    def dictionary(self, items: Mapping[str, bytes]) -> bytes:
        pairs = b"".join(self.text(name) + value for name, value in items.items())
        return b"\x80\x02}(" + pairs + b"u."


class Files:
    """Writes files of chosen bytes and opens them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def open(self, content: bytes) -> File:
        self.count += 1
        path = self.folder / f"{self.count}"
        path.write_bytes(content)
        return File(path)

    def safetensors(self, header: object, data: bytes) -> File:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return self.open(struct.pack("<Q", len(raw)) + raw + data)

    def archive(self, pickle: bytes, records: Mapping[str, bytes]) -> bytes:
        """A zip with a folder, data.pkl, version and `records`."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            everything = {"data.pkl": pickle, "version": b"3\n", **records}
            for name, content in everything.items():
                archive.writestr(f"archive/{name}", content)
        return target.getvalue()


@pytest.fixture
def pickles() -> Pickles:
    return Pickles()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)
