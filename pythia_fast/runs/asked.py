"""What a sweep of one model was asked for, found out before any work."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, SupportsIndex

from pythia_fast.errors import ArgumentError, SweepError, SweepInterruptedError
from pythia_fast.model import Precision
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.measure import auto_batch_tokens
from pythia_fast.runs.plan import Plan
from pythia_fast.series import CheckpointSeries


@dataclass(frozen=True, slots=True)
class Asked:
    """The sweep of one model: from what, of what, into which folder, and how.

    `budget_bytes` is the most that downloads may take; None is as much as there is room for.
    """

    series: CheckpointSeries
    plan: Plan
    folder: RunFolder
    batch_tokens: int | Literal["auto"]
    budget_bytes: int | None

    def batch_tokens_in(self, precision: Precision) -> int:
        """How many tokens go through the model at once."""
        return resolve_batch_tokens(self.batch_tokens, self.plan, precision)


def check_batch_tokens(batch_tokens: object) -> None:
    """ArgumentError unless it is "auto" or a positive number."""
    if batch_tokens == "auto":
        return
    if (
        not isinstance(batch_tokens, SupportsIndex)
        or isinstance(batch_tokens, bool)
        or operator.index(batch_tokens) < 1
    ):
        raise ArgumentError(f"batch_tokens is 'auto' or a positive number, not {batch_tokens!r}")


def resolve_batch_tokens(
    batch_tokens: int | Literal["auto"], plan: Plan, precision: Precision
) -> int:
    """The number that `batch_tokens` means for this plan, computed in this precision."""
    if plan.deterministic and not precision.reproducible:
        return 1  # less than any sequence: each makes a batch of its own
    if batch_tokens == "auto":
        return auto_batch_tokens(plan.spec.architecture, precision)
    return operator.index(batch_tokens)


@contextmanager
def named(name: str, models: int) -> Iterator[None]:
    """Of several models, an error of a sweep says which it is about."""
    try:
        yield
    except (SweepError, SweepInterruptedError) as error:
        if models == 1:
            raise
        raise type(error)(f"{name}: {error}") from error.__cause__
