"""What a model asks of the kernels that compute: on a CPU `Native`, on a GPU `Gpu`.

B sequences, T tokens of each, N targets, D width, V vocabulary rows.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import torch

from pythia_fast.kernels.scores import TokenScores
from pythia_fast.model.weights import Weights


class Kernels(Protocol):
    """One architecture's forward pass. Calls from several threads take turns.

    ids and targets are int64 [B, T], on the weights' device.
    """

    def nll(self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Nats of each target, [B, T] float32."""
        ...

    def scores(
        self, ids_BT: torch.Tensor, y_BT: torch.Tensor, weights: Weights, start: int
    ) -> TokenScores:
        """All scores of the targets from position `start` on, [B, T - start] each."""
        ...

    def scores_at(
        self,
        ids_BT: torch.Tensor,
        row_N: torch.Tensor,
        place_N: torch.Tensor,
        y_N: torch.Tensor,
        weights: Weights,
        end_BT: torch.Tensor | None = None,
    ) -> TokenScores:
        """All scores of targets [N], each behind a place in a row; N is 1 at least.

        Rows may be trees of tokens, each seen up to `end_BT`: see `pythia_fast.kernels.tree`.
        """
        ...

    def logits_into(self, ids_BT: torch.Tensor, weights: Weights, to_BTV: torch.Tensor) -> None:
        """Logits of each next token, rounded to the dtype of `to`."""
        ...

    def lens_into(
        self, ids_BT: torch.Tensor, weights: Weights, to: Mapping[int, torch.Tensor]
    ) -> None:
        """`logits_into` from the residual stream at each layer that `to` has a tensor for."""
        ...

    def lens_scores(
        self,
        ids_BT: torch.Tensor,
        y_BT: torch.Tensor,
        weights: Weights,
        start: int,
        layers: Collection[int],
    ) -> dict[int, TokenScores]:
        """`scores` from the residual stream at each of the `layers`."""
        ...

    def residual_stream(
        self, ids_BT: torch.Tensor, weights: Weights, deepest: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The residual stream before each block up to `deepest`, numbered, [B, T, D].

        In the dtype that the kernels keep it in. It is the caller's own; calls wait for its end.
        """
        ...
