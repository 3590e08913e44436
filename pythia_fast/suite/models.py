"""Every model of the suite as frozen data, found by name.

Sources: the model cards on the Hub (as of 2026), the README, changelog and configuration files of
github.com/EleutherAI/pythia, and its issues, written #n.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from pythia_fast.suite.interventions import interventions
from pythia_fast.suite.model_spec import SEED, Corpus, ModelSpec, Precision, SeedVaries
from pythia_fast.suite.names import resolve
from pythia_fast.suite.sizes import SIZES, Size
from pythia_fast.suite.steps import STEPS, STEPS_V0, TOKENS_PER_STEP

__all__ = ["OPTIMIZER", "SUITE", "ModelSpec", "checkpoints", "models", "spec"]

SUITE = tuple(
    size + variant
    for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
    for variant in ("", "-deduped")
)
"""The sixteen models of the paper (arXiv:2304.01373): eight sizes on each of two corpora."""

OPTIMIZER = (
    "Adam, betas 0.9 and 0.95, eps 1e-8, weight decay 0.1, gradients clipped at norm 1; "
    "cosine schedule after a warm-up over 1% of the steps"
)

_DATA: Mapping[Corpus, str] = {
    "pile-standard": "the Pile, a little under one epoch",
    "pile-deduped": "the Pile after global deduplication (207B tokens), about 1.5 epochs",
}
_SINCE_V0 = (
    "checkpoints at step 0 and at 1, 2, 4, …, 512",
    "trained with Flash Attention",
)
_BATCH_HALVED = "batches of 2M tokens for 143,000 steps instead of 4M for 71,500"
_DECAY_TO_TENTH = "the learning rate falls to a tenth of its peak instead of to 0"
_BFLOAT16 = "trained in bfloat16: in float16 the loss broke down late in training"
_OTHER_START = (
    "initialised with GPT-NeoX's defaults (normal, 0.02) and not as the paper says: the yml left "
    "the setting out (#135)"
)
_YML_RATE = "the yml gives a learning rate of 2.5e-4, card and paper 3e-4"
_V0_LABELS = (
    "took 71,500 steps of 4M tokens; the label stepN is real step N/2, with the tokens of stepN of "
    "other models. The published v0 evaluations count real steps"
)
_OWN_ORDER = "shuffles the Pile anew: the suite's published training order is not this model's"


class Models(tuple[ModelSpec, ...]):
    """Models of the suite, shown as `pythia-fast models` shows them."""

    __slots__ = ()

    def __repr__(self) -> str:
        from pythia_fast.suite.describe import table  # which imports this module

        return table(self)


def models() -> tuple[ModelSpec, ...]:
    """Every model of the suite, by size and then by variant."""
    return Models(_catalogue().values())


def spec(name: str) -> ModelSpec:
    """What is known of one model: `spec("12b-deduped")`, also by its repository or old name.

    UnknownModelError, with the nearest names, if there is none.
    """
    catalogue = _catalogue()
    return catalogue[resolve(name, catalogue.keys())]


def checkpoints(name: str) -> tuple[int, ...]:
    """The steps of a model, ascending. UnknownModelError as for `spec`.

    These are the suite's. A few were never uploaded or are wrong on the Hub: see `anomalies`.
    """
    return spec(name).steps


@cache
def _catalogue() -> Mapping[str, ModelSpec]:
    """All specs under their names, built on first use."""
    specs: dict[str, ModelSpec] = {}
    for size in SIZES:
        for found in (*_current(size), *_first_release(size), *_seeds(size)):
            specs[found.name] = found
        for found in interventions(specs[f"{size.name}-deduped"]):
            specs[found.name] = found
    return MappingProxyType(specs)


def _current(size: Size) -> Iterator[ModelSpec]:
    """The release of April 2023, and 14m and 31m of that November: standard and deduped."""
    yield _card(size, "", _standard_corpus(size), _precision(size, "pile-standard"))
    yield _card(size, "-deduped", "pile-deduped", _precision(size, "pile-deduped"))


def _first_release(size: Size) -> Iterator[ModelSpec]:
    """The runs until April 2023, which were named -v0 when the suite was trained again."""
    if size.batch_tokens_v0 is None:
        return
    corpora: tuple[tuple[str, Corpus], ...] = (
        ("-v0", "pile-standard"),
        ("-deduped-v0", "pile-deduped"),
    )
    for variant, corpus in corpora:
        yield replace(
            _card(size, variant, corpus, "float16"),
            release="v0",
            steps=STEPS_V0,
            batch_tokens=size.batch_tokens_v0,
            final_learning_rate=0.0 if size.name in ("6.9b", "12b") else _tenth(size),
            old_names=(),
            changed=(),
            notes=_notes_v0(size, variant),
        )


def _seeds(size: Size) -> Iterator[ModelSpec]:
    """PolyPythias (arXiv:2503.09543): other seeds of the small sizes, on the standard Pile."""
    runs: list[tuple[str, int, SeedVaries]] = []
    if size.name in ("14m", "31m", "70m", "160m", "410m"):
        runs += [(f"-seed{n}", n, "initialisation and data order") for n in range(1, 10)]
    if size.name == "160m":
        runs += [(f"-data-seed{n}", n, "data order") for n in range(1, 4)]
        runs += [(f"-weight-seed{n}", n, "initialisation") for n in range(1, 4)]
    for variant, seed, varies in runs:
        yield replace(
            _card(size, variant, "pile-standard", "float16"),
            release="polypythias",
            seed=seed,
            seed_varies=varies,
            old_names=(),
            changed=(),
            notes=() if varies == "initialisation" else (_OWN_ORDER,),
        )


def _card(size: Size, variant: str, corpus: Corpus, precision: Precision) -> ModelSpec:
    """A model of the current release; the other families replace what is different in them."""
    return ModelSpec(
        name=size.name + variant,
        repo=f"EleutherAI/pythia-{size.name}{variant}",
        architecture=size.architecture,
        steps=STEPS,
        release="v1",
        corpus=corpus,
        seed=SEED,
        batch_tokens=TOKENS_PER_STEP,
        batch_tokens_v0=size.batch_tokens_v0,
        learning_rate=size.learning_rate,
        final_learning_rate=_tenth(size),
        precision=precision,
        equivalent=size.equivalent,
        old_names=tuple(old + variant for old in size.old_names),
        data=_DATA[corpus],
        licence="Apache-2.0",
        changed=_changed(size, precision),
        notes=_notes(size, variant),
    )


def _standard_corpus(size: Size) -> Corpus:
    """What the model without a suffix was trained on: see the note on 31m."""
    return "pile-deduped" if size.name == "31m" else "pile-standard"


def _tenth(size: Size) -> float:
    """Where the cosine schedule ends, without the dust of a binary division."""
    return round(size.learning_rate / 10, 10)


def _precision(size: Size, corpus: Corpus) -> Precision:
    """Float16 for all but 1b, whose deduplicated twin stayed with float16 too (#171)."""
    return "bfloat16" if (size.name, corpus) == ("1b", "pile-standard") else "float16"


def _changed(size: Size, precision: Precision) -> tuple[str, ...]:
    """What the model card's changelog says of this size."""
    if size.batch_tokens_v0 is None:
        return ()
    halved = (_BATCH_HALVED,) if size.batch_tokens_v0 > TOKENS_PER_STEP else ()
    decay = (_DECAY_TO_TENTH,) if size.name in ("6.9b", "12b") else ()
    bfloat16 = (_BFLOAT16,) if precision == "bfloat16" else ()
    return (*halved, *_SINCE_V0, *decay, *bfloat16)


def _notes(size: Size, variant: str) -> tuple[str, ...]:
    """What else a user should know of a current model."""
    notes: Mapping[str, tuple[str, ...]] = {
        "14m": (
            "added in November 2023. Until 27 February 2026 this repository served the model that "
            "was trained on the deduplicated Pile, now 14m-deduped: look at when results were made",
        ),
        "14m-deduped": ("was served as 14m until 27 February 2026",),
        "31m": (
            "added in November 2023. The README calls it standard, but the model card of 2026 says "
            "that it was trained on the deduplicated Pile and that no other exists, and the yml "
            "names that data; the repository is now 31m-deduped, and this name leads there",
        ),
        "31m-deduped": ("31m under its present name",),
        "1b": (_YML_RATE, "the yml says float16, but training was in bfloat16"),
        "1b-deduped": (_YML_RATE,),
        "6.9b": (_OTHER_START,),
        "6.9b-deduped": (_OTHER_START,),
        "12b": (_OTHER_START,),
        "12b-deduped": (
            _OTHER_START,
            "the yml has layers and heads swapped (40 and 36): it is 36 layers of 40 heads",
        ),
    }
    return notes.get(size.name + variant, ())


def _notes_v0(size: Size, variant: str) -> tuple[str, ...]:
    """What else a user should know of a model of the first release."""
    labels = (_V0_LABELS,) if size.batch_tokens_v0 != TOKENS_PER_STEP else ()
    residual = (
        ("its config.json lacks use_parallel_residual, which means the default: parallel",)
        if size.name + variant == "160m-v0"
        else ()
    )
    model = size.name + variant.removesuffix("-v0")
    name = (f"was itself called {model} until April 2023, when {model} was trained again",)
    return labels + residual + name
