"""What is known of one series of checkpoints."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pythia_fast.markup import html_facts
from pythia_fast.quantities import counted
from pythia_fast.suite.architecture import Architecture
from pythia_fast.suite.steps import TOKENS_PER_STEP, unknown_step

Corpus = Literal["pile-standard", "pile-deduped"]
Release = Literal["v0", "v1", "polypythias", "intervention"]
Variant = Literal["intervention", "long-intervention"]
Precision = Literal["float16", "bfloat16"]
SeedVaries = Literal["initialisation and data order", "data order", "initialisation"]

SEED = 1234
"""GPT-NeoX's own seed, that of every model without a seed in its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One series of checkpoints: its shape, its steps, and what its model card says.

    Everything below `steps` is None or empty where it is not known: for a local folder always.
    """

    name: str
    """As this package prints it: "12b-deduped", "160m-seed3"."""
    repo: str | None
    """On the Hub; None for a local folder."""
    architecture: Architecture
    steps: tuple[int, ...]
    """Ascending. The revision of step N is the branch `stepN`."""
    release: Release | None = None
    corpus: Corpus | None = None
    seed: int | None = None
    seed_varies: SeedVaries | None = None
    """What differs between this run and those with other seeds of its family."""
    base: str | None = None
    """The model from a checkpoint of which an intervened one was trained on: "1.4b-deduped"."""
    branch_step: int | None = None
    """That checkpoint. The rows that followed were trained on with altered texts."""
    variant: Variant | None = None
    """What sets an intervened model apart from its base in tables of evaluations."""
    batch_tokens: int | None = None
    """Tokens in each batch as this very model was trained."""
    batch_tokens_v0: int | None = None
    """Tokens in each batch of the first release of this size."""
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    precision: Precision | None = None
    equivalent: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    data: str | None = None
    licence: str | None = None
    changed: tuple[str, ...] = ()
    """What is different from the first release."""
    notes: tuple[str, ...] = ()

    @classmethod
    def local(cls, name: str, architecture: Architecture, steps: tuple[int, ...]) -> "ModelSpec":
        """The spec of a folder of checkpoints, of which no card says anything."""
        return cls(name=name, repo=None, architecture=architecture, steps=tuple(sorted(set(steps))))

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.architecture.parameters

    @property
    def non_embedding_parameters(self) -> int:
        """All weights but the two embeddings."""
        return self.architecture.non_embedding_parameters

    @property
    def suite_order(self) -> bool:
        """Whether it is known to have seen its corpus in the suite's own, published order.

        Not so for other seeds, which shuffle anew, nor for the decoupled ones, whose cards do not
        say which order was held fixed. An intervened model saw the same rows in the same order, but
        those after its `branch_step` with other texts: see `unaltered`.
        """
        return self.seed == SEED

    def unaltered(self, step: int) -> int:
        """How many of the steps behind the checkpoint `step` were on the corpus as it stands.

        All of them, but for an intervened model only those up to its branch.
        """
        return step if self.branch_step is None else min(step, self.branch_step)

    def revision(self, step: int) -> str:
        """The branch on the Hub. UnknownStepError if the series has no such step."""
        self._check(step)
        return f"step{step}"

    def real_step(self, step: int) -> int:
        """Optimizer steps behind the checkpoint labelled `step`.

        Half of the label in the first release of 160m, 410m and 1.4b: with 4M tokens in a batch
        they took 71,500 steps, and the labels were made to agree in tokens seen. Elsewhere the
        label itself.
        UnknownStepError if the series has no such step.
        """
        self._check(step)
        return step * TOKENS_PER_STEP // (self.batch_tokens or TOKENS_PER_STEP)

    def tokens_seen(self, step: int) -> int | None:
        """Training tokens behind the checkpoint labelled `step`; None for a local folder."""
        self._check(step)
        return None if self.batch_tokens is None else step * TOKENS_PER_STEP

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON knows, with the parameters counted."""
        card = asdict(self)
        card["architecture"] |= {
            "head_dim": self.architecture.head_dim,
            "parameters": self.parameters,
            "non_embedding_parameters": self.non_embedding_parameters,
        }
        return {key: list(v) if isinstance(v, tuple) else v for key, v in card.items()}

    def __repr__(self) -> str:
        where = self.repo or "a local folder"
        return (
            f"<ModelSpec {self.name}: {where}, {self.parameters:,} parameters, "
            f"{counted(len(self.steps), 'checkpoint')}>"
        )

    def __str__(self) -> str:
        from pythia_fast.suite.describe import card  # which is about this very class

        return card(self)

    def _repr_html_(self) -> str:
        from pythia_fast.suite.describe import facts  # which is about this very class

        return html_facts(facts(self), title=self.repo or self.name)

    def _check(self, step: int) -> None:
        if step not in self.steps:
            raise unknown_step(step, self.steps, series=self.name)
