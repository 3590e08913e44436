"""What lies in a run folder, read and checked; `folder` writes it."""

import json
import operator
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pythia_fast.errors import Failure as Failure
from pythia_fast.errors import FormatError, ReadError
from pythia_fast.suite import Architecture

FORMAT = 1
METADATA = b"pythia_fast"
EVALUATION = "evaluation"
"""What the specification of a run that is no sweep says of itself as its kind."""
MENDED_BY = "the same sweep puts it aside and computes it again"
"""What mends a damaged part, for an error about one."""
T = TypeVar("T")
_OF_A_PART = {
    *("model", "shards", "commit", "identity", "weights_sha256", "weights_nonfinite"),
    *("duplicate_of", "dtype", "device", "tokens_fingerprint", "version"),
}

Complete = tuple[int, str, dict[str, Any], list[Path]]
"""Step, metric, origin and files of what is complete."""


def read_run(path: Path) -> dict[str, Any] | None:
    """The `run.json` of a run folder, or None if there is none. FormatError if it is none."""
    file = path / "run.json"
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadError.of(file, error) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(file, f"no valid JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or "hash" not in record:
        raise FormatError(file, f"not a run of format {FORMAT}")
    if not isinstance(record.get("specification"), dict):
        raise FormatError(file, "it has no specification")
    return record


def is_evaluation(path: Path) -> bool:
    """Whether a folder is the run folder of an evaluation, not of a sweep. As `read_run`."""
    run = read_run(path)
    return run is not None and run["specification"].get("kind") == EVALUATION


def runs_in(path: Path) -> tuple[Path, ...]:
    """The run folders in a folder and in the folders in it, the smallest model's first.

    Those further down are not looked for. ReadError if it cannot be listed, FormatError if a
    `run.json` is none.
    """
    try:
        found = [file.parent for file in path.glob("*/run.json")]
        found += [
            file.parent for file in path.glob("*/*/run.json") if file.parent.parent not in found
        ]
    except OSError as error:
        raise ReadError.of(path, error, "list") from error
    return tuple(sorted(found, key=lambda each: (_weights_of(each), each.relative_to(path))))


def no_run_words(path: Path) -> str:
    """Why a folder is none of a run, and what it may be instead."""
    if not path.exists():
        return f"there is no folder {path}"
    inside = runs_in(path)
    if inside:
        first = inside[0].relative_to(path)
        return f"{path} holds several runs, such as {first}: give one, or use SweepResults for all"
    return f"{path} holds no run.json: it is not a run folder"


def _weights_of(path: Path) -> int:
    """How many weights a run's model has, 0 if its `run.json` makes no sense of that."""
    run = read_run(path)
    try:
        return Architecture(**run["specification"]["architecture"]).parameters if run else 0
    except (KeyError, TypeError, ValueError):
        return 0


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part, page checksums verified. FormatError if it is damaged.

    With `columns` only those of them that it has.
    """
    try:
        with _opened(path) as file:
            # Not by read_table, which takes three times as long for a small file.
            return pq.ParquetFile(file, page_checksum_verification=True).read(columns)
    except OSError as error:
        raise FormatError(path, f"damaged: {error}; {MENDED_BY}") from error
    except pa.ArrowException as error:
        raise FormatError(path, f"no Parquet: {error}; {MENDED_BY}") from error


def _opened(path: Path) -> pa.OSFile:
    """A part as Arrow's own file.

    Not by its name, which Arrow may take for an address. Nor as Python's file, which Arrow's
    threads may still hold when the interpreter ends: that aborts the process.
    """
    return pa.OSFile(os.fsencode(path.absolute()))


def columns_of(path: Path) -> tuple[str, ...]:
    """Which columns a part has. FormatError if it is damaged."""
    try:
        with _opened(path) as file:
            return tuple(pq.read_schema(file).names)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(path, f"no part of a run ({error}); {MENDED_BY}") from error


def read_provenance(path: Path) -> dict[str, Any]:
    """What a part says of where it came from. FormatError if it does not say."""
    try:
        with _opened(path) as file:
            metadata = pq.read_schema(file).metadata or {}
        provenance = json.loads(metadata[METADATA])
    except (OSError, pa.ArrowException, KeyError, ValueError, RecursionError) as error:
        raise FormatError(path, f"no part of a run ({error}); {MENDED_BY}") from error
    if not isinstance(provenance, dict):
        raise FormatError(path, f"its provenance is no JSON object; {MENDED_BY}")
    return provenance


def read_origin(path: Path, run_hash: str, step: int, metric: str) -> dict[str, Any]:
    """A part's provenance. FormatError unless it is of this run, step and metric."""
    origin = read_provenance(path)
    check_origin(path, origin, run_hash, step, metric)
    return origin


def check_origin(path: Path, origin: Any, run_hash: str, step: int, metric: str) -> None:
    """FormatError unless this provenance of a part is complete, of this run, step and metric."""
    if not isinstance(origin, dict):
        raise FormatError(path, f"its provenance is no JSON object; {MENDED_BY}")
    for key, wanted in {"run": run_hash, "step": step, "metric": metric}.items():
        if origin.get(key) != wanted:
            raise FormatError(
                path, f"its {key} is {origin.get(key)!r}, not {wanted!r}; {MENDED_BY}"
            )
    if missing := sorted(_OF_A_PART - origin.keys()):
        raise FormatError(path, f"its provenance lacks {', '.join(missing)}; {MENDED_BY}")


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """What lies in `folder` as step=N, by N; symbolic links and anything else are not ours."""
    name = re.compile(r"step=(0|[1-9]\d*)", re.ASCII)
    own = folder.is_dir() and not folder.is_symlink()
    entries = [each for each in folder.iterdir() if not each.is_symlink()] if own else []
    return sorted((int(match[1]), each) for each in entries if (match := name.fullmatch(each.name)))


def read_record(path: Path, parse: Callable[[Any], T], what: str) -> T | None:
    """What `parse` makes of a file of JSON, None if it is gone. FormatError: it is no `what`."""
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise FormatError(path, f"no {what} ({error!r}); remove it") from error


def steps_in(numbers: Any) -> list[int]:
    """Steps as a record holds them. TypeError if they are something else."""
    return list(map(operator.index, numbers))


def read_failures(path: Path) -> tuple[Failure, ...]:
    """The failures that a run folder keeps, by step. FormatError if one is none."""
    failures = []
    for file in (path / "failures").glob("step=*.json"):
        parse = partial(_failure, file)
        if failure := read_record(file, parse, "record of a failure"):
            failures.append(failure)  # else another process has mended the step meanwhile
    return tuple(sorted(failures, key=lambda failure: failure.step))


def read_asked(path: Path) -> set[int]:
    """The steps that the sweeps of a run folder were asked for. FormatError if a record is none."""
    steps: set[int] = set()
    for file in (path / "asked").glob("*.json"):
        asked = read_record(file, lambda record: steps_in(record["steps"]), "record of steps")
        steps.update(asked or ())
    return steps


def _failure(file: Path, record: Any) -> Failure:
    step = int(file.stem.removeprefix("step="))
    return Failure(step, str(record["error"]), str(record["message"]))


def evaluated_steps(path: Path) -> list[int]:
    """The steps of which the folder of an evaluation has a file of results, in order."""
    names = (file.stem.removeprefix("step=") for file in (path / "results").glob("step=*.json"))
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name, re.ASCII))
