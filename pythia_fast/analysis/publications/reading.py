"""The numbers in a file of published evaluations: the harness's JSON, promptsource's, or CSV."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pythia_fast.analysis.publications.naming import (
    Subject,
    count,
    of_repository,
    printable,
    subject,
)

_MOST_BYTES = 256 << 20
_NOT_METRICS = frozenset({"alias", "name", "sample_len", "samples", "sample_count"})
_PROMPTED = ("task_name", "prompt_name")
_STDERR = "_stderr"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a file. `value` is None where there is none, and `problem` says why."""

    task: str | None
    metric: str | None
    value: float | None
    stderr: float | None = None
    prompt: str | None = None
    task_version: str | None = None
    num_fewshot: int | None = None
    problem: str | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or the part of a CSV that is about one checkpoint.

    `status` is "ok" here, "foreign", "doubtful", "unreadable" or "other" (no file of results).
    """

    file: str
    subject: Subject
    measures: list[Measure] = field(default_factory=list)
    harness_model: str | None = None
    limit: float | None = None
    status: str = "ok"
    problem: str | None = None
    duplicate_of: str | None = None

    def marked(self, status: str, problem: str, duplicate_of: str | None = None) -> "Source":
        """The same, with another status and one more thing to say of it."""
        said = problem if self.problem is None else f"{self.problem}; {problem}"
        first = self.duplicate_of or duplicate_of
        return replace(self, status=status, problem=said, duplicate_of=first)


def read_file(folder: Path, name: str) -> Iterator[Source]:
    """What lies in a file, whatever it is: what cannot be read gives a source that says so."""
    path = folder / name
    name = printable(name)
    kind = path.suffix.lower()
    if kind not in (".json", ".csv"):
        yield Source(name, Subject(None), status="other", problem="neither .json nor .csv")
        return
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
        if kind == ".csv":
            yield from _csv(name, text)
            return
        document = json.loads(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        about = Subject(None) if kind == ".csv" else subject(path, {})
        yield Source(name, about, status="unreadable", problem=printable(f"cannot be read: {said}"))
        return
    yield _json(path, name, document)


def _json(path: Path, name: str, document: object) -> Source:
    found: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    config = found.get("config")
    if not isinstance(config, Mapping):
        config = {"model_args": found["model_args"]} if "model_args" in found else {}
    about = subject(path, config)
    results = found.get("results", found.get("table_results"))
    if not isinstance(results, Mapping | list):
        return Source(name, about, status="unreadable", problem="it has no results")
    measures = list(_measures(results, found))
    if not measures:
        return Source(name, about, status="unreadable", problem="its results are empty")
    limit = config.get("limit")
    source = Source(
        name,
        about,
        measures,
        harness_model=printable(config["model"]) if isinstance(config.get("model"), str) else None,
        limit=_finite(_number(limit)),
    )
    return judged(source)


def judged(source: Source) -> Source:
    """With the status and the problem that follow from what it is about."""
    about = source.subject
    for remark in about.remarks:
        source = source.marked(source.status, remark)
    if about.foreign:
        return source.marked("foreign", "it is of no model of the suite")
    if about.model is None:
        return source.marked("foreign", "neither its name nor its content says which model it is")
    if about.step is None:
        return source.marked("doubtful", "neither its name nor its content says which step it is")
    for doubt in about.doubts:
        source = source.marked("doubtful", doubt)
    return source


def _measures(
    results: Mapping[str, Any] | list[Any], found: Mapping[str, Any]
) -> Iterator[Measure]:
    """The numbers, task by task: of the harness by task, of promptsource by task and prompt."""
    versions, shots = found.get("versions"), found.get("n-shot")
    versions = versions if isinstance(versions, Mapping) else {}
    shots = shots if isinstance(shots, Mapping) else {}
    entries = results.items() if isinstance(results, Mapping) else enumerate(results)
    for key, entry in entries:
        if not isinstance(entry, Mapping):
            yield Measure(printable(str(key)), None, None, problem="the task has no numbers")
            continue
        task = str(entry.get("task_name", key))
        prompt = entry.get("prompt_name")
        own_shots = shots.get(key)
        if own_shots is not None and count(own_shots) is None:
            words = "its n-shot is no number of shots"
            yield Measure(printable(task), None, None, problem=words)
            continue
        yield from _metrics(
            printable(task),
            _numbers_of(entry),
            prompt=printable(prompt) if isinstance(prompt, str) else None,
            version=None if versions.get(key) is None else printable(str(versions[key])),
            shots=count(own_shots),
        )


def _numbers_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A task's entries that are metrics; of promptsource's, which hold words too, the numbers."""
    own = {printable(str(k)): v for k, v in entry.items() if k.strip() and k not in _NOT_METRICS}
    if any(key in own for key in _PROMPTED):
        own = {key: value for key, value in own.items() if _is_number(value)}
    return own


def _metrics(
    task: str,
    own: Mapping[str, Any],
    *,
    prompt: str | None,
    version: str | None,
    shots: int | None,
) -> Iterator[Measure]:
    for key, value in own.items():
        name, _, chosen = key.partition(",")  # "acc,none": the harness since 0.4
        if name.endswith(_STDERR):
            continue
        error = own.get(f"{name}{_STDERR},{chosen}" if chosen else f"{name}{_STDERR}")
        measure = Measure(
            task,
            name if chosen in ("", "none") else key,
            _number(value),
            _finite(_number(error)),
            prompt,
            version,
            shots,
        )
        if measure.value is None:
            measure = replace(measure, problem=f"{value!r:.40} is no number")
        yield measure


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float | None:
    """A JSON number; one that is larger than any float is infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _csv(file: str, text: str) -> Iterator[Source]:
    """A CSV with the columns model, checkpoint, task, and one or more metrics."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = rows.fieldnames or []
    if missing := {"model", "checkpoint", "task"} - set(columns):
        problem = f"it has no column {', '.join(sorted(missing))}"
        yield Source(file, Subject(None), status="unreadable", problem=problem)
        return
    own = {"model", "checkpoint", "task", "fewshot"}
    metrics = [name for name in columns if name and name not in own and not name.endswith(_STDERR)]
    sources: dict[tuple[str, int | None, int | None], list[Measure]] = {}
    for row in rows:
        key = (str(row["model"] or ""), _whole(row["checkpoint"]), _whole(row.get("fewshot")))
        measures = sources.setdefault(key, [])
        for metric in metrics:
            value, error = _float(row[metric]), _finite(_float(row.get(metric + _STDERR)))
            said = None if value is not None else f"{row[metric]!r:.40} is no number"
            measures.append(Measure(row["task"], metric, value, error, problem=said))
    if not sources:
        yield Source(file, Subject(None), status="unreadable", problem="it has no rows")
    for (model, step, shots), measures in sources.items():
        yield judged(Source(file, of_repository(model, step, shots), measures))


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
