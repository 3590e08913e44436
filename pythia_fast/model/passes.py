"""A batch goes through a GPU in as few passes as its memory allows.

How many tokens go at a time follows from the memory that is free; where that was too many, it is
half as many from then on.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from pythia_fast.errors import DeviceMemoryError
from pythia_fast.model import devices
from pythia_fast.quantities import sized

Result = TypeVar("Result")

MOST_TOKENS = 32768
"""Of a pass: sixteen whole sequences fill any GPU; more gain nothing."""

MEMORY_SHARE = 0.5
"""The part of the free memory that the activations of a pass may take."""


class Passes:
    """Those of one model on one device, where the activations of a token take `token_bytes`."""

    def __init__(self, token_bytes: int, device: torch.device) -> None:
        self.token_bytes, self._device = token_bytes, device
        self._tokens: int | None = None

    @property
    def tokens(self) -> int:
        """How many go through at a time; one sequence does at least, which may be longer.

        From the free memory when it is first asked for; half a pass that did not fit later on.
        """
        if self._tokens is None:
            fitting = int(MEMORY_SHARE * self.free_bytes() / self.token_bytes)
            self._tokens = max(1, min(MOST_TOKENS, fitting))
        return self._tokens

    def free_bytes(self) -> int:
        """Memory that is free, or that torch keeps for reuse; in the interpreter, a full pass's."""
        if self._device.type != "cuda":
            return MOST_TOKENS * self.token_bytes
        return devices.free_bytes(self._device)

    def run(
        self,
        sequences: int,
        tokens: int,
        work: Callable[[slice], Result],
        give_back: Callable[[], None],
    ) -> Iterator[tuple[slice, Result]]:
        """The work on slices of so many sequences of so many tokens, as long as memory allows.

        It is done again, on half as many, where a slice does not fit, and so on; before that,
        `give_back` frees what the passes until then have kept. DeviceMemoryError if one sequence
        does not fit.
        """
        first = 0
        while first < sequences:
            rows = slice(first, min(sequences, first + max(1, self.tokens // tokens)))
            try:
                result = work(rows)
            except torch.OutOfMemoryError:
                pass
            else:
                yield rows, result
                first = rows.stop
                continue
            # Behind the except: until there the error holds the tensors.
            give_back()
            self._shrink(rows.stop - rows.start, tokens)

    def _shrink(self, sequences: int, tokens: int) -> None:
        """A pass of so many sequences of so many tokens did not fit: half as many from now on."""
        if sequences < 2:
            raise DeviceMemoryError(
                f"one sequence of {tokens} tokens does not fit into the memory of "
                f"{self._device} beside the weights: {sized(self.free_bytes())} are free, and "
                f"its activations take {sized(tokens * self.token_bytes)}"
            )
        self._tokens = sequences // 2 * tokens


def finish(passes: Iterator[object]) -> None:
    """Do them all, for what their work writes."""
    deque(passes, maxlen=0)
