"""The results in an evaluation's folder, one file a step, in the harness's own format.

run.json                       the specification: tasks, requests, model, versions
results/step=N.json            what the harness says, and under "pythia_fast" where it is from
samples/step=N/<task>.jsonl    every request with its answer, if asked for
failures/step=N.json           why a step failed, until it succeeds
"""

import json
from pathlib import Path
from typing import Any

from pythia_fast.errors import FormatError

KIND = "evaluation"
"""What the specification of such a run says of itself."""

_OF_A_RESULT = (
    *("run", "model", "step", "commit", "identity", "weights_sha256", "weights_nonfinite"),
    *("duplicate_of", "dtype", "device", "version"),
)


def result_name(step: int) -> str:
    """The name of a step's file in the folder."""
    return f"results/step={step}.json"


def read_result(folder: Path, step: int) -> dict[str, Any] | None:
    """A step's results, or None if there are none. FormatError if the file is damaged."""
    path = folder / result_name(step)
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            path, f"damaged: {error}; remove it to evaluate the step again"
        ) from error
    found: dict[str, Any] = record if isinstance(record, dict) else {}
    origin = found.get("pythia_fast")
    whole = isinstance(origin, dict) and origin.keys() >= set(_OF_A_RESULT)
    if (
        not whole
        or not isinstance(found.get("results"), dict)
        or found["pythia_fast"]["step"] != step
    ):
        raise FormatError(
            path, f"no results of step {step} by this package; remove it to evaluate it again"
        )
    return found
