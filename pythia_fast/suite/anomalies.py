"""Checkpoints on the Hub that are not what their name says, as reported by those who found them.

The issues are those of github.com/EleutherAI/pythia. What code can check at run time (a hash, a
missing file) it should check: this list is for what only a person can know, and it will age.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.models import spec
from pythia_fast.suite.steps import STEPS

Kind = Literal["identical", "wrong weights", "unrelated start", "missing", "replaced"]

_THOUSANDS_TO_53 = range(1_000, 53_001, 1_000)
_ROUND_LATER = (55, 60, 65, 70, 80, 90, 100, 103, 110, 120, 130, 140)
_LIKE_MAIN_2_8B = (
    *STEPS[:11],
    *_THOUSANDS_TO_53,
    *(1_000 * thousands for thousands in _ROUND_LATER),
)
_SECOND_FILE_2_8B = tuple(1_000 * n for n in (54, 56, 57, 58, 59, 61, 62, 63, 64, 143))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Something known of some checkpoints of one model."""

    model: str
    steps: tuple[int, ...]
    kind: Kind
    meaning: str
    """What it is, and what it does to a study."""
    issue: int
    expected: bool = False
    """The files are what training left behind: no mistake, but a surprise."""
    mended: bool = False
    """Put right on the Hub since; an old cache may still hold the old files."""
    files: str | None = None
    """The only files concerned, where others of the same revision are not."""

    @property
    def url(self) -> str:
        """Where it was reported."""
        return f"https://github.com/EleutherAI/pythia/issues/{self.issue}"


_STARTS = "160m-weight-seed1", "160m-weight-seed2"


def anomalies(model: str | ModelSpec) -> tuple[Anomaly, ...]:
    """What is known to be odd with a model's checkpoints; nothing for a local folder.

    UnknownModelError if `model` is a name that does not exist.
    """
    found = spec(model) if isinstance(model, str) else model
    if found.repo is None:
        return ()
    same_start: tuple[Anomaly, ...] = ()
    if found.steps[:2] == (0, 1) and found.name not in _STARTS:
        same_start = (_same_start(found.name),)
    return (*same_start, *_REPORTED.get(found.name, ()))


def _same_start(model: str) -> Anomaly:
    return Anomaly(
        model=model,
        steps=(0, 1),
        kind="identical",
        meaning=(
            "step 1 has the weights of step 0, because the warm-up gives the first iteration a "
            "learning rate of 0: one point, not two"
        ),
        issue=83,
        expected=True,
    )


def _grouped(reported: Iterable[Anomaly]) -> Mapping[str, tuple[Anomaly, ...]]:
    by_model: dict[str, tuple[Anomaly, ...]] = {}
    for anomaly in reported:
        by_model[anomaly.model] = (*by_model.get(anomaly.model, ()), anomaly)
    return by_model


def _missing(model: str, step: int) -> Anomaly:
    return Anomaly(
        model=model,
        steps=(step,),
        kind="missing",
        meaning="the branch is there, its weights are not",
        issue=202,
    )


_REPORTED = _grouped(
    [
        Anomaly(
            model="2.8b",
            steps=_LIKE_MAIN_2_8B,
            kind="wrong weights",
            meaning=(
                "76 branches have a model.safetensors with the bytes of main's: the final model "
                "under the name of an early step"
            ),
            issue=205,
            files="model.safetensors",
        ),
        Anomaly(
            model="2.8b",
            steps=_SECOND_FILE_2_8B,
            kind="wrong weights",
            meaning=(
                "10 branches share one model.safetensors, whose embeddings are those of main; only "
                "the other 68 of 154 are files of their own"
            ),
            issue=205,
            files="model.safetensors",
        ),
        Anomaly(
            model="12b",
            steps=(50_000, 58_000),
            kind="wrong weights",
            meaning=(
                "the first of three shards (input embedding, early layers) is the final model's, "
                "the others are the step's own: a mixture that was never trained"
            ),
            issue=206,
            files="pytorch_model-00001-of-00003.bin",
        ),
        Anomaly(
            model="12b",
            steps=(4_000, 32_000),
            kind="missing",
            meaning="not on the Hub until June 2023",
            issue=107,
            mended=True,
        ),
        Anomaly(
            model="12b-deduped",
            steps=(32_000,),
            kind="replaced",
            meaning="was another, much later checkpoint until it was uploaded anew in June 2023",
            issue=108,
            mended=True,
        ),
        Anomaly(
            model="6.9b",
            steps=(26_000,),
            kind="missing",
            meaning="not on the Hub until April 2023",
            issue=94,
            mended=True,
        ),
        *(
            Anomaly(
                model=model,
                steps=STEPS[1:],
                kind="unrelated start",
                meaning=(
                    "step 1 and all that follow start from the initialisation of the data-seed "
                    "runs, not from this repository's step 0: nothing may be measured against it"
                ),
                issue=203,
            )
            for model in _STARTS
        ),
        _missing("410m-seed2", 111_000),
        _missing("410m-seed6", 88_000),
        _missing("410m-seed9", 40_000),
    ]
)
