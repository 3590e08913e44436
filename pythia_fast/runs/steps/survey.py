"""What is known of the steps before the first byte: missing, the same, and odd ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pythia_fast.series import CheckpointSeries
from pythia_fast.series.revision import Revision
from pythia_fast.suite import Anomaly, anomalies
from pythia_fast.words import listed

_STEPS_SHOWN = 8  # of an anomaly, in one line


@dataclass(frozen=True)
class Survey:
    """The steps' revisions, and the anomalies that concern the very files that will be read.

    Each anomaly's steps are those of this survey that it is true of.
    """

    revisions: Mapping[int, Revision]
    anomalies: tuple[Anomaly, ...]

    @property
    def missing(self) -> dict[int, Exception]:
        """The steps that cannot be had, each with the reason."""
        return {
            step: revision.error
            for step, revision in self.revisions.items()
            if revision.error is not None
        }

    def remarks(self, step: int) -> tuple[str, ...]:
        """What is known to be odd with a step, in words."""
        return tuple(in_words(each) for each in self.anomalies if step in each.steps)

    def known(self) -> list[str]:
        """All that is known to be odd, in words, each with the steps that it concerns."""
        return [
            f"known of step {listed(anomaly.steps, _STEPS_SHOWN)}: {in_words(anomaly)}"
            for anomaly in self.anomalies
        ]

    def renewed(self, series: CheckpointSeries, steps: Sequence[int]) -> "Survey":
        """The same, but for these steps, which are asked for again. HubError."""
        return _survey_of(series, {**self.revisions, **series.survey(steps)})

    def narrowed(self, series: CheckpointSeries, steps: Iterable[int]) -> "Survey":
        """The same of these steps alone; nothing is asked for again."""
        return _survey_of(series, {step: self.revisions[step] for step in steps})

    def same_weights(self, steps: Iterable[int]) -> list[tuple[int, ...]]:
        """The steps in groups of those with the same weights, each group and all in order.

        A step of whose weights no digest is known is a group of its own.
        """
        return self._grouped(steps, lambda each: each.digest)

    def alike(self, steps: Iterable[int]) -> list[tuple[int, ...]]:
        """As `same_weights`, by the outline where no digest is known: that asks for no more.

        Two that are not in a group have other weights, or lie in other files.
        """
        return self._grouped(steps, lambda each: each.digest or each.outline)

    def download_bytes(self, steps: Iterable[int]) -> int:
        """What is to be downloaded for the steps; the same weights are so once."""
        return sum(each.download_bytes for each in self._firsts(steps))

    def coming_bytes(self, steps: Iterable[int]) -> int:
        """What the disk does not have yet of the steps, the same weights once."""
        return sum(each.coming_bytes for each in self._firsts(steps))

    def makes_masks(self, steps: Iterable[int]) -> bool:
        """Whether `download_bytes` is an estimate, since masks need not be downloaded."""
        return any(each.made_bytes and each.coming_bytes for each in self._firsts(steps))

    def _grouped(
        self, steps: Iterable[int], key_of: Callable[[Revision], str | None]
    ) -> list[tuple[int, ...]]:
        groups: dict[object, list[int]] = {}
        for step in steps:
            groups.setdefault(key_of(self.revisions[step]) or step, []).append(step)
        return [tuple(group) for group in groups.values()]

    def _firsts(self, steps: Iterable[int]) -> list[Revision]:
        return [self.revisions[group[0]] for group in self.same_weights(steps)]


def survey(series: CheckpointSeries, steps: Sequence[int]) -> Survey:
    """Ask for all that can be known of the steps before anything of them is downloaded.

    HubError if the Hub cannot be asked. A step that is missing is no error here.
    """
    return _survey_of(series, dict(series.survey(steps)))


def in_words(anomaly: Anomaly) -> str:
    """One line, with where it was reported."""
    mended = ", mended since" if anomaly.mended else ""
    return f"{anomaly.kind}{mended}: {anomaly.meaning} ({anomaly.url})"


def weights_sha256(series: CheckpointSeries, step: int) -> str:
    """The fingerprint of a step's weights, from its files."""
    with closing(series.open(step)) as checkpoint:
        return checkpoint.weights_sha256


def _survey_of(series: CheckpointSeries, revisions: Mapping[int, Revision]) -> Survey:
    narrowed = (
        replace(anomaly, steps=_true_of(anomaly, revisions)) for anomaly in anomalies(series.spec)
    )
    return Survey(
        revisions,
        tuple(
            each for each in narrowed if len(each.steps) >= (2 if each.kind == "identical" else 1)
        ),
    )


def _true_of(anomaly: Anomaly, revisions: Mapping[int, Revision]) -> tuple[int, ...]:
    """The steps of which it is true: those that are read, and from the files that it is about.

    What is said to be missing is looked at and not believed.
    """
    return tuple(
        step
        for step in anomaly.steps
        if (revision := revisions.get(step)) is not None
        and (revision.error is not None) == (anomaly.kind == "missing")
        and (anomaly.files is None or any(file.path == anomaly.files for file in revision.files))
    )
