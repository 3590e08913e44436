"""A run's specification, checked as far as the page needs it."""

from collections.abc import Mapping
from typing import Any

from pythia_fast.errors import FormatError
from pythia_fast.report.run import Run


def check_record(run: Run) -> None:
    """FormatError if a part of `run.json` is not what a sweep writes."""
    specification = run.record.get("specification")
    if not isinstance(specification, Mapping):
        raise _wrong(run, "it has no specification")
    metrics = specification.get("metrics")
    if not isinstance(metrics, (list, tuple)):
        raise _wrong(run, f"its metrics are no list: {metrics!r}")
    for metric in metrics:
        if not isinstance(metric, Mapping) or "name" not in metric:
            raise _wrong(run, f"a metric has no name: {metric!r}")
    _check_object(run, specification, "architecture")
    if isinstance(sequences := specification.get("sequences"), Mapping):
        for key in ("first", "count", "stride"):
            if not _is_count(sequences.get(key)):
                raise _wrong(run, f"its sequences have no whole number {key!r}: {sequences!r}")
    for key in ("sources", "versions", "machine"):
        _check_object(run, run.record, key)


def memorizing(run: Run) -> dict[str, Any] | None:
    """The first metric of a prompt and its continuation, in tokens; None if there is none.

    `others` are the metrics of the same kind beside it, of which the page shows the numbers only.
    FormatError if they are no whole numbers.
    """
    found: list[dict[str, Any]] = []
    for metric in run.record["specification"]["metrics"]:
        settings = metric.get("settings")
        if not isinstance(settings, Mapping) or not {"prompt", "continuation"} <= settings.keys():
            continue
        is_ours = str(metric.get("type", "")).startswith("pythia_fast.")
        lengths = {key: settings[key] for key in ("prompt", "continuation")}
        if all(_is_count(length) for length in lengths.values()):
            found.append({"metric": str(metric["name"]), **lengths})
        elif is_ours:
            raise _wrong(run, f"prompt and continuation are no whole numbers: {lengths!r}")
    return found[0] | {"others": [each["metric"] for each in found[1:]]} if found else None


def _check_object(run: Run, record: Mapping[str, Any], key: str) -> None:
    value = record.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(run, f"its {key} is no object: {value!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(run: Run, reason: str) -> FormatError:
    return FormatError(run.path / "run.json", reason)
