"""Lists of checksums: as sha256sum writes them, and as others do.

`hash  name`, `hash *name`, `name hash` (as Pythia's published shard_hashes.txt), `name: hash` and
`SHA256 (name) = hash`; blank lines and comments (#) are left out.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pythia_fast.cache import expanded
from pythia_fast.errors import FormatError, MissingTokensError, ReadError

_HASH = r"(?P<sha256>[0-9A-Fa-f]{64})"
_LINES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"(?P<escaped>\\)?{_HASH} [ *](?P<name>.+)",
        rf"{_HASH}\s+(?P<name>.+)",
        rf"SHA256 \((?P<name>.+)\) = {_HASH}",
        rf"(?P<name>.+?):?\s+{_HASH}",
    )
)
_LIST_BYTES = 1 << 26


def read_checksums(path: str | os.PathLike[str]) -> dict[str, str]:
    """Name and sha256, in lower case, of each file of a list, in its order.

    MissingTokensError if there is no list, ReadError if it cannot be read; FormatError, with the
    line, for one that says neither, a name that leads out of the list's folder, and a name with two
    checksums.
    """
    place = expanded(path)
    try:
        with place.open("rb") as file:
            data = file.read(_LIST_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingTokensError(f"no list of checksums at {place}") from error
    except OSError as error:
        raise ReadError.of(place, error) from error
    if len(data) > _LIST_BYTES:
        raise FormatError(place, f"a list of checksums has at most {_LIST_BYTES:,} bytes")
    found: dict[str, str] = {}
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        line = os.fsdecode(raw.removesuffix(b"\r"))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, sha256 = _parse(place, number, line)
        if found.setdefault(name, sha256) != sha256:
            raise FormatError(place, f"line {number}: {name!r} has another checksum further up")
    if not found:
        raise FormatError(place, "the list has no checksum")
    return found


def format_checksums(digests: Mapping[str, str]) -> str:
    """Lines that `sha256sum -c` accepts; a name with a line's end in it is escaped as there."""
    return "".join(_line(name, sha256) + "\n" for name, sha256 in digests.items())


def _parse(path: Path, number: int, line: str) -> tuple[str, str]:
    match = next((found for each in _LINES if (found := each.fullmatch(line))), None)
    if match is None:
        raise FormatError(
            path,
            f"line {number}: a name and a sha256 of 64 hexadecimal digits are expected, not "
            f"{line[:100]!r}",
        )
    name = match["name"]
    if match.groupdict().get("escaped"):
        name = re.sub(r"\\(.)", lambda pair: {"n": "\n", "r": "\r"}.get(pair[1], pair[1]), name)
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
        raise FormatError(path, f"line {number}: {name!r} does not lie in the folder that is meant")
    return str(place), match["sha256"].lower()


def _line(name: str, sha256: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}"
