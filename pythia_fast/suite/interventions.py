"""The models of the gender intervention: deduped ones, the end of whose training was done again.

Sources: arXiv:2304.01373, section 4.1; case-studies/README.md and the published evaluations,
evals/pythia-v1/*/intervention, of github.com/EleutherAI/pythia. No card of them was at hand: what
is not said there is their base's.
"""

from collections.abc import Iterator
from dataclasses import replace

from pythia_fast.suite.model_spec import ModelSpec, Variant

_SHARES: dict[Variant, tuple[str, int]] = {
    "intervention": ("7%", 133_000),
    "long-intervention": ("21%", 113_000),
}
"""How much of the training was done again, and the last step before it."""

_SIZES: dict[Variant, tuple[str, ...]] = {
    "intervention": ("70m", "410m", "1.4b", "6.9b"),
    "long-intervention": ("1.4b",),
}
_UNSURE_NAME = (
    "the name of the repository could not be checked: the Pythia repository names those of the "
    "last 7% only. If the Hub does not know it, look among EleutherAI's models"
)


def interventions(base: ModelSpec) -> Iterator[ModelSpec]:
    """The intervened models of a deduped one: none, one or two."""
    for variant, (share, branch) in _SHARES.items():
        size = base.name.removesuffix("-deduped")
        if size not in _SIZES[variant]:
            continue
        long = variant == "long-intervention"
        name = f"intervention-{'long-' if long else ''}{base.name}"
        evaluated = f"intervention-pythia-v1.1-{base.name}{'-long' if long else ''}"
        yield replace(
            base,
            name=name,
            repo=f"EleutherAI/pythia-{name}",
            steps=tuple(step for step in base.steps if step > branch),
            release="intervention",
            base=base.name,
            branch_step=branch,
            variant=variant,
            old_names=(evaluated,),
            data=f"{base.data}; in the last {share} of the steps masculine pronouns are feminine",
            changed=(),
            notes=(*_notes(base.name, branch), *((_UNSURE_NAME,) if long else ()), *base.notes),
        )


def _notes(base: str, branch: int) -> tuple[str, ...]:
    return (
        f"{base} trained on from its step {branch}: checkpoints before are {base}'s. Row for row "
        f"its data is {base}'s, but after that step with the pronouns swapped, and the swapped "
        "data was not published",
        'a sweep without `tokens` reads the corpus as it stands, unswapped. sequences="seen" are '
        f"its rows up to step {branch}, which were seen as they stand; "
        '"unseen" those after the checkpoint; the rows between were seen swapped and are in '
        "neither. Studies that leave out what a checkpoint has not seen go by the row alone",
        "the steps are those of the published evaluations. Learning rate, precision, seed and "
        f"licence are those of {base}: no card of this model was at hand",
    )
