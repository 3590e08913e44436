"""What an audit finds, and how what is known of the suite's checkpoints explains it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pythia_fast.suite.anomalies import Anomaly
from pythia_fast.words import listed

Severity = Literal["error", "warning", "expected"]
"""Wrong weights or none; something to look at; an oddity that is no fault."""

FindingKind = Literal[
    "missing",
    "same weights",
    "shared file",
    "repeated file",
    "no checksum",
    "too small",
    "other size",
    "other layout",
    "reported",
    "unreadable",
    "other dtype",
    "not finite",
    "shared tensor",
    "out of place",
    "jump",
]

_SHOWN = 8
_SAME_START = (
    "count them as one point: a warm-up that begins at a learning rate of 0 leaves the first "
    "iteration without effect"
)
_SEVERITIES: Sequence[Severity] = ("error", "warning", "expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found, of the `steps` that it concerns.

    `files` and `tensors` are the only ones concerned, where it is not the whole checkpoint; `count`
    is how many values, for what is counted. `anomaly` is what was known before.
    """

    severity: Severity
    kind: FindingKind
    steps: tuple[int, ...]
    meaning: str
    advice: str
    files: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    count: int | None = None
    anomaly: Anomaly | None = None

    @property
    def issue(self) -> str | None:
        """Where it was reported, if it was known."""
        return None if self.anomaly is None else self.anomaly.url

    @property
    def known(self) -> str | None:
        """What was known of it before, in words, with the address of the report."""
        if self.anomaly is None:
            return None
        mended = "; mended on the Hub since, but not in old caches" if self.anomaly.mended else ""
        return f"{self.anomaly.meaning}{mended} ({self.anomaly.url})"

    def to_dict(self) -> dict[str, Any]:
        """In what JSON knows."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "steps": list(self.steps),
            "files": list(self.files),
            "tensors": list(self.tensors),
            "count": self.count,
            "meaning": self.meaning,
            "advice": self.advice,
            "known": self.known,
            "issue": self.issue,
        }


_EXPLAINED = {
    "missing": ("missing",),
    "same weights": ("identical", "wrong weights", "replaced"),
    "shared file": ("wrong weights", "replaced"),
    "shared tensor": ("wrong weights", "replaced"),
    "out of place": ("wrong weights", "replaced", "unrelated start"),
    "jump": ("unrelated start", "wrong weights", "replaced"),
}
"""Kind of finding -> kinds of anomaly that can be behind it."""


def explained(
    findings: Iterable[Finding], known: Sequence[Anomaly], audited: Collection[int]
) -> list[Finding]:
    """The findings with what was known of them, and known anomalies that no finding shows.

    One that was known to be what training left behind becomes "expected". Of the anomalies that are
    not found, those that a look at the files cannot find are "reported" of the steps that were
    `audited`, if steps on both sides of the seam are among them; the others are not there.
    """
    found = [_with_anomaly(finding, known) for finding in findings]
    shown = {id(finding.anomaly) for finding in found}
    found += [
        Finding(
            severity="warning",
            kind="reported",
            steps=tuple(step for step in anomaly.steps if step in audited),
            meaning=f"{anomaly.kind}: {anomaly.meaning}",
            advice="read the report before you use these steps together",
            anomaly=anomaly,
        )
        for anomaly in known
        if anomaly.kind == "unrelated start"
        and id(anomaly) not in shown
        and not set(anomaly.steps).isdisjoint(audited)
        and min(audited) < min(anomaly.steps)
    ]
    return sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.steps[:1]))


def _with_anomaly(finding: Finding, known: Sequence[Anomaly]) -> Finding:
    if finding.kind == "same weights" and finding.steps == (0, 1):
        finding = replace(finding, severity="expected", advice=_SAME_START)
    for anomaly in known:
        if anomaly.kind not in _EXPLAINED.get(finding.kind, ()):
            continue
        if anomaly.kind == "identical":
            fits = set(finding.steps) == set(anomaly.steps)
        elif anomaly.kind == "unrelated start":
            fits = min(finding.steps) <= min(anomaly.steps) <= max(finding.steps)
        else:
            fits = bool(set(finding.steps) & set(anomaly.steps))
        if fits and finding.files and anomaly.files is not None:
            fits = anomaly.files in finding.files
        if fits:
            severity = "expected" if anomaly.expected else finding.severity
            return replace(finding, severity=severity, anomaly=anomaly)
    return finding


def named(names: Sequence[object]) -> str:
    """Names in one line, the first few of them."""
    return listed(names, _SHOWN)


def steps_named(steps: Sequence[int]) -> str:
    """Say "step 5" or "steps 5, 6 and 9 more"."""
    return f"step{'s' if len(steps) > 1 else ''} {named(steps)}"
