"""The numbers of the demo: what is trained, on how much, with what planted in it."""

from dataclasses import dataclass

from pythia_fast.errors import ArgumentError
from pythia_fast.suite import Architecture

CANARY_TOKENS = 64
"""A prompt and a continuation of 32 tokens each, as memorization is defined for Pythia."""

VOCAB_ROWS = 264
"""256 bytes and end-of-text, padded to a multiple of 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What `run_demo` makes. The defaults were chosen so that the promises of `Story` hold.

    A training row has `tokens` inputs and one more as the last label, `batch_rows` rows make a
    step. The learning rate warms up, stays, and falls linearly to 0 in the last `decay_steps`: in
    so few steps, more is memorized than with a cosine. All of a head's dimensions are rotated,
    where Pythia rotates a quarter: so small a model is quicker to learn which token came before.
    """

    steps: int = 600
    batch_rows: int = 4
    tokens: int = 96
    repetitions: tuple[int, ...] = (0, 1, 4, 16, 64)
    canaries_each: int = 4
    layers: int = 2
    width: int = 96
    heads: int = 6
    learning_rate: float = 3e-3
    warm_up_steps: int = 20
    decay_steps: int = 240
    clip_norm: float = 1.0
    save_every: int = 50
    swept_rows: int = 256
    seed: int = 1234

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_rows, self.canaries_each, self.save_every) < 1:
            raise ArgumentError(f"every count of a recipe is at least 1, got {self}")
        if self.tokens + 1 < CANARY_TOKENS:
            raise ArgumentError(
                f"a row of {self.tokens + 1} tokens has no room for a canary of {CANARY_TOKENS}"
            )
        planted = self.canaries_each * sum(self.repetitions)
        if planted > self.rows:
            raise ArgumentError(f"{planted} rows with canaries do not fit into {self.rows} rows")

    @property
    def rows(self) -> int:
        """All rows of the training data."""
        return self.steps * self.batch_rows

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """0, 1, 2, 4, 8, … and every `save_every` steps, and the last."""
        powers = {2**i for i in range(self.steps.bit_length())}
        even = range(0, self.steps + 1, self.save_every)
        return tuple(sorted(step for step in {*powers, *even, self.steps} if step <= self.steps))

    @property
    def architecture(self) -> Architecture:
        """The model's shape; it takes up to 256 tokens, though it is trained on fewer."""
        return Architecture(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            vocab_rows=VOCAB_ROWS,
            intermediate=4 * self.width,
            rotary_dims=self.width // self.heads,
            max_positions=256,
        )

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of training step `step`, counted from 1."""
        rise = step / self.warm_up_steps
        fall = (self.steps + 1 - step) / self.decay_steps
        return self.learning_rate * min(1.0, rise, fall)
