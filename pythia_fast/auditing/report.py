"""What an audit found, to be read, counted on, and passed on."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from pythia_fast.auditing.continuity import Distance
from pythia_fast.auditing.findings import Finding, Severity, named
from pythia_fast.markup import html_table

NOT_CLEAN = 4
_SCHEMA = pa.schema(
    {
        "severity": pa.string(),
        "kind": pa.string(),
        "steps": pa.list_(pa.int64()),
        "files": pa.list_(pa.string()),
        "tensors": pa.list_(pa.string()),
        "count": pa.int64(),
        "meaning": pa.string(),
        "advice": pa.string(),
        "known": pa.string(),
        "issue": pa.string(),
    }
)


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What was found of the `steps` of a series, errors first.

    `deep` says whether the weights were read; `measured` are then the distances from each
    checkpoint to the next.
    """

    model: str
    source: str
    steps: tuple[int, ...]
    deep: bool
    findings: tuple[Finding, ...]
    measured: tuple[Distance, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found but what is expected."""
        return not self.unexpected

    @property
    def unexpected(self) -> tuple[Finding, ...]:
        """Errors and warnings."""
        return tuple(each for each in self.findings if each.severity != "expected")

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 if all is well, 4 if not."""
        return 0 if self.ok else NOT_CLEAN

    @cached_property
    def table(self) -> pa.Table:
        """A row for each finding.

        `severity`, `kind`, `steps`, `files`, `tensors` (empty: all), `count`, `meaning`, `advice`,
        and what was `known` before, with its `issue`.
        """
        return pa.Table.from_pylist([each.to_dict() for each in self.findings], schema=_SCHEMA)

    @cached_property
    def distances(self) -> pa.Table:
        """A row for each group of tensors and pair of consecutive checkpoints.

        `group`, `step`, `following`, `distance`: |w_b - w_a| / max(|w_a|, |w_b|), from a sample of
        at most 65,536 values of each tensor. No rows without `deep`.
        """
        return pa.table(
            {
                "group": pa.array([each.group for each in self.measured], pa.string()),
                "step": pa.array([each.step for each in self.measured], pa.int64()),
                "following": pa.array([each.following for each in self.measured], pa.int64()),
                "distance": pa.array([each.distance for each in self.measured], pa.float64()),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """All but the distances, in what JSON knows."""
        return {
            "model": self.model,
            "source": self.source,
            "steps": list(self.steps),
            "deep": self.deep,
            "ok": self.ok,
            "findings": [each.to_dict() for each in self.findings],
        }

    def to_json(self) -> str:
        """`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<AuditReport {self._summary()}>"

    def __str__(self) -> str:
        """A table of the findings, and after it what each of them means, by its number."""
        lines = [self._summary()]
        if self.findings:
            lines += ["", *self._lines()]
        for number, each in enumerate(self.findings, start=1):
            lines += ["", f"{number}. {each.meaning}"]
            if each.known is not None:
                lines.append(f"   known: {each.known}")
            lines.append(f"   what to do: {each.advice}")
        return "\n".join(lines)

    def _lines(self) -> list[str]:
        """The table, its columns aligned."""
        rows = [("", "severity", "kind", "steps", "issue")]
        rows += [
            (str(number), each.severity, each.kind, named(each.steps), _issue(each))
            for number, each in enumerate(self.findings, start=1)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]

    def _repr_html_(self) -> str:
        names = ("severity", "kind", "steps", "meaning", "what to do", "known")
        rows = [
            (each.severity, each.kind, named(each.steps), each.meaning, each.advice, each.known)
            for each in self.findings
        ]
        return html_table(names, rows, title=self._summary(), most=len(rows))

    def _summary(self) -> str:
        steps = f"{len(self.steps)} steps, {self.steps[0]} to {self.steps[-1]}"
        how = "files and weights" if self.deep else "files"
        counts = Counter(each.severity for each in self.findings)
        found = ", ".join(
            f"{counts[severity]} {words[counts[severity] > 1]}"
            for severity, words in _WORDS.items()
            if counts[severity]
        )
        return f"{self.model}: {steps}, {how} audited: {found or 'nothing found'}"


_WORDS: Mapping[Severity, tuple[str, str]] = {
    "error": ("error", "errors"),
    "warning": ("warning", "warnings"),
    "expected": ("oddity that is no fault", "oddities that are no faults"),
}


def _issue(finding: Finding) -> str:
    return "" if finding.anomaly is None else f"#{finding.anomaly.issue}"
