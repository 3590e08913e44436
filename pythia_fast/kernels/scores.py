"""What a next-token distribution says of each target, without the distribution itself."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per scored position, all of one shape ([N] from a kernel, [B, T] from a model).

    nll: nats, logsumexp - target_logit. logsumexp, target_logit: of the logits row.
    argmax: int64, the most likely token; the lowest id wins a tie.
    margin: best minus second-best logit, so 0 for a tie. All float32 but `argmax`; a row of logits
    that holds a NaN has a NaN nll and margin.
    """

    nll: torch.Tensor
    logsumexp: torch.Tensor
    target_logit: torch.Tensor
    argmax: torch.Tensor
    margin: torch.Tensor

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "TokenScores":
        """The same with `function` applied to every tensor."""
        return TokenScores(*(function(getattr(self, field.name)) for field in fields(self)))

    @staticmethod
    def cat(parts: "list[TokenScores]") -> "TokenScores":
        """Join along the first dimension."""
        names = [field.name for field in fields(TokenScores)]
        return TokenScores(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @staticmethod
    def joined(
        parts: "list[TokenScores]", shape: tuple[int, int], device: torch.device
    ) -> "TokenScores":
        """Parts [N] of a batch, one after the other, as [B, T]; of no parts if there is nothing."""
        if not parts:
            none = torch.empty(shape, dtype=torch.float32, device=device)
            return TokenScores(none, none, none, none.long(), none)
        return TokenScores.cat(parts).map(lambda x_N: x_N.view(shape))
