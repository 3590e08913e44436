"""Documents out of text and JSONL files, plain or compressed, each with the line it begins on."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, TypeAlias, get_args

from pythia_fast.errors import ArgumentError, FormatError, OnError
from pythia_fast.tokens.text.compressed import DamagedError, StoppedError, compression, opened
from pythia_fast.words import listed

Split: TypeAlias = Literal["file", "line", "paragraph"]
Format: TypeAlias = Literal["auto", "text", "jsonl"]
Document: TypeAlias = tuple[str, str, int]
"""A text, the name of its file, and the line that it begins on, from 1."""

JSONL = (".jsonl", ".ndjson", ".json")
_BOM = b"\xef\xbb\xbf"
_KEPT_AT_MOST = 10


def check_choice(name: str, value: str, among: Any) -> None:
    """ArgumentError unless the argument `name` is one of a Literal's values."""
    if value not in get_args(among):
        raise ArgumentError(f"{name} is {', '.join(map(repr, get_args(among)))}, not {value!r}")


class Mistakes:
    """What is wrong in the input: raised at once, or counted and the first few kept.

    Threads may share it.
    """

    def __init__(self, on_error: OnError) -> None:
        self.count = 0
        self.first: list[str] = []
        self._skip = on_error == "skip"
        self._lock = threading.Lock()

    def note(self, path: str, line: int, reason: str) -> None:
        """FormatError that names file and line, unless mistakes are skipped."""
        error = FormatError(path, f"line {line}: {reason}")
        if not self._skip:
            raise error
        with self._lock:
            self.count += 1
            if len(self.first) < _KEPT_AT_MOST:
                self.first.append(str(error))


def read_documents(
    inputs: Sequence[str | os.PathLike[str]],
    mistakes: Mistakes,
    *,
    format: Format = "auto",
    field: str = "text",
    split: Split = "file",
    stop: threading.Event | None = None,
) -> Iterator[Document]:
    r"""The documents of all inputs, in order; empty ones too.

    An input is a path, or "-" for standard input. Names that end in .jsonl, .ndjson or .json hold
    one JSON object a line, whose `field` is the text; all others are text, each file, line or
    paragraph (what blank lines are between) a document. What ends in .gz, .bz2, .xz or .zst, after
    such an ending, is compressed. Text is UTF-8, with or without a byte order mark; lines end with
    \n or \r\n. After damage that no reader gets over, the rest of that file is left out.
    When `stop` is set by another thread, this one no longer waits for a pipe; the iterator ends.
    """
    for given in inputs:
        path = os.fspath(given)
        line = 1
        try:
            with opened(path, stop) as file:
                for text, line in _documents(file, path, mistakes, format, field, split):
                    yield text, path, line
        except StoppedError:
            return
        except DamagedError as error:
            mistakes.note(path, line, f"from there on the compressed data is damaged: {error}")


def _documents(
    file: IO[bytes], path: str, mistakes: Mistakes, format: Format, field: str, split: Split
) -> Iterator[tuple[str, int]]:
    if _is_jsonl(path, format):
        return _of_json(_lines(file), path, mistakes, field)
    pieces = {"file": _whole, "line": _lines, "paragraph": _paragraphs}[split](file)
    return _of_text(pieces, path, mistakes)


def _is_jsonl(path: str, format: Format) -> bool:
    if format != "auto":
        return format == "jsonl"
    return path.removesuffix(compression(path)).lower().endswith(JSONL)


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(_BOM)
        yield line.removesuffix(b"\n").removesuffix(b"\r"), number


def _whole(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    yield file.read().removeprefix(_BOM), 1


def _paragraphs(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    held: list[bytes] = []
    for line, number in _lines(file):
        if line.strip():
            held.append(line)
        elif held:
            yield b"\n".join(held), number - len(held)
            held = []
    if held:
        yield b"\n".join(held), number - len(held) + 1


def _of_text(
    pieces: Iterator[tuple[bytes, int]], path: str, mistakes: Mistakes
) -> Iterator[tuple[str, int]]:
    for piece, line in pieces:
        text = _decoded(piece, path, line, mistakes)
        if text is not None:
            yield text, line


def _of_json(
    lines: Iterator[tuple[bytes, int]], path: str, mistakes: Mistakes, field: str
) -> Iterator[tuple[str, int]]:
    for line, number in lines:
        if not line.strip():
            continue
        document = _decoded(line, path, number, mistakes)
        if document is None:
            continue
        try:
            found = json.loads(document)
        except (ValueError, RecursionError) as error:
            mistakes.note(path, number, f"no valid JSON: {error}")
            continue
        text = found.get(field) if isinstance(found, dict) else None
        if not isinstance(text, str):
            mistakes.note(path, number, _complaint(found, field))
        elif b"\\u" in line and not _is_unicode(text):
            mistakes.note(path, number, "half of a surrogate pair, which is no text")
        else:
            yield text, number


def _decoded(data: bytes, path: str, line: int, mistakes: Mistakes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        of_error = line + data.count(b"\n", 0, error.start)
        mistakes.note(path, of_error, f"no UTF-8: {error.reason}, byte 0x{data[error.start]:02x}")
        return None


def _complaint(found: object, field: str) -> str:
    if not isinstance(found, dict):
        return f"a JSON object is expected, not a {type(found).__name__}"
    if field not in found:
        there = listed(map(repr, found)) or "nothing"
        return f"there is no field {field!r}, only {there}"
    return f"the field {field!r} is no text but {type(found[field]).__name__}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
