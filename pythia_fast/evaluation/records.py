"""The results in an evaluation's folder, one file a step, in the harness's own format.

run.json                            the specification: tasks, requests, model, versions
results/step=N.json                 what the harness says; under "pythia_fast" where it is from,
                                    and the names of its samples
samples/step=N/<task>-<hash>.jsonl  every request with its answer, if asked for; the hash is theirs
failures/step=N.json                why a step failed, until it succeeds
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pythia_fast.errors import FormatError

_AGAIN = "remove it to evaluate the step again"
_LARGEST = 2**63
_SAMPLES = re.compile(r"samples/step=\d+/[^\0]+-([0-9a-f]{16})\.jsonl", re.ASCII)
_TEXTS = ("run", "model", "identity", "weights_sha256", "dtype", "device", "version")
_BY_TASK = ("versions", "n-shot", "n-samples", "higher_is_better")


def result_name(step: int) -> str:
    """The name of a step's file in the folder."""
    return f"results/step={step}.json"


def samples_name(step: int, task: str, sha256: str) -> str:
    """The name of the file with a task's samples, which have this sha256."""
    return f"samples/step={step}/{task}-{sha256[:16]}.jsonl"


def read_result(folder: Path, step: int, run_hash: str) -> dict[str, Any] | None:
    """A step's results, or None if there are none.

    FormatError if the file is damaged, or of another run than the one with this hash.
    """
    path = folder / result_name(step)
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(path, f"damaged: {error}; {_AGAIN}") from error
    wrong = _wrong(record, step)
    if wrong is not None:
        raise FormatError(path, f"no results of step {step} by this package: {wrong}; {_AGAIN}")
    if record["pythia_fast"]["run"] != run_hash:
        raise FormatError(path, f"it is of another run; {_AGAIN}")
    found: dict[str, Any] = record
    return found


def read_samples(path: Path) -> list[dict[str, Any]]:
    """A file of samples. FormatError if it is not there, or is not what its name says."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(path, f"cannot be read: {error.strerror}") from error
    if not path.stem.endswith(f"-{hashlib.sha256(data).hexdigest()[:16]}"):
        raise FormatError(
            path,
            "damaged: it does not hold what its name says; remove it and the step's results to "
            "evaluate the step again",
        )
    return [json.loads(line) for line in data.decode().split("\n") if line]


def _wrong(record: object, step: int) -> str | None:
    """What is wrong with the shape of a result; None if nothing is."""
    if not isinstance(record, dict):
        return "no JSON object"
    origin = record.get("pythia_fast")
    if not isinstance(origin, dict):
        return "it does not say where it is from"
    if origin.get("step") != step:
        return f"it is of step {origin.get('step')!r}"
    for key in _TEXTS:
        if not isinstance(origin.get(key), str):
            return f"its {key} is {_short(origin.get(key))}"
    whole = _is_count(origin.get("weights_nonfinite")) and "duplicate_of" in origin
    if not whole or not _is_count(origin["duplicate_of"], optional=True):
        return "it does not say what its weights are"
    if not isinstance(origin.get("commit", 0), str | None):
        return f"its commit is {_short(origin.get('commit'))}"
    samples = origin.get("samples", {})
    if not isinstance(samples, dict) or not all(map(_is_samples_name, samples.values())):
        return f"its samples are {_short(samples)}"
    return _wrong_numbers(record)


def _wrong_numbers(record: Mapping[str, Any]) -> str | None:
    if not isinstance(record.get("results"), dict):
        return "it has none"
    for key in _BY_TASK:
        if not isinstance(record.get(key, {}), dict):
            return f"its {key} are {_short(record[key])}"
    if not isinstance(record.get("lm_eval_version"), str | None):
        return f"its lm_eval_version is {_short(record['lm_eval_version'])}"
    for task, numbers in record["results"].items():
        if not isinstance(numbers, dict) or not all(map(_fits, numbers.values())):
            return f"its results of {task} are {_short(numbers)}"
        if not _is_count(numbers.get("sample_len"), optional=True):
            return f"its sample_len of {task} is {_short(numbers['sample_len'])}"
    for task, shots in record.get("n-shot", {}).items():
        if not _is_count(shots, optional=True):
            return f"its n-shot of {task} is {_short(shots)}"
    for task, counts in record.get("n-samples", {}).items():
        if not isinstance(counts, dict) or not _is_count(counts.get("effective"), optional=True):
            return f"its n-samples of {task} are {_short(counts)}"
    for task, better in record.get("higher_is_better", {}).items():
        if not isinstance(better, dict) or not all(
            isinstance(each, bool | None) for each in better.values()
        ):
            return f"its higher_is_better of {task} is {_short(better)}"
    return None


def _is_count(value: object, *, optional: bool = False) -> bool:
    if value is None:
        return optional
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _fits(value: object) -> bool:
    """Whether a number is one that a float can be; what is no number is the harness's affair."""
    return not isinstance(value, int) or abs(value) < _LARGEST


def _is_samples_name(name: object) -> bool:
    """Whether it is a file of samples, and inside the folder."""
    inside = isinstance(name, str) and ".." not in Path(name).parts
    return inside and _SAMPLES.fullmatch(str(name)) is not None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:60]}…"
