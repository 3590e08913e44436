"""Perplexity: how surprised a checkpoint is by each next token.

B sequences, T tokens; a sequence of T tokens has T - 1 losses: its first token is never a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pythia_fast.metrics.protocol import Batch, Column
from pythia_fast.model import Model


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token (arXiv:2304.01373, section 3).

    Columns: `nll` (nats, summed over the sequence, float64), `tokens` (losses summed), `nonfinite`
    (how many of them are NaN or infinite) and, with `per_token`, `token_nll` (list of float32
    nats, one for each token from the second on). Of a step: `perplexity`, `loss` (nats per token,
    weighted by tokens), `tokens`, `nonfinite`.
    """

    per_token: bool = False

    @property
    def name(self) -> str:
        """The metric's name in tables and file names."""
        return "perplexity"

    @property
    def uses_scores(self) -> bool:
        """The losses are part of the scores."""
        return True

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Column]:
        """Sum the nats of each sequence, its padding left out."""
        nll_BT = model.nll(batch.ids_BT) if batch.scores is None else batch.scores.nll
        positions_T = torch.arange(nll_BT.shape[1], device=nll_BT.device)
        counted_BT = positions_T < batch.lengths_B[:, None] - 1
        nll_BT = nll_BT.where(counted_BT, 0)
        columns: dict[str, Column] = {
            "nll": nll_BT.double().sum(1),
            "tokens": counted_BT.sum(1),
            "nonfinite": (~nll_BT.isfinite()).sum(1),
        }
        if self.per_token:
            columns["token_nll"] = _ragged(nll_BT, counted_BT)
        return columns

    def summarize(self, sequences: pa.Table) -> dict[str, float]:
        """The step's perplexity and loss over all tokens of all sequences."""
        tokens = pc.sum(sequences["tokens"]).as_py() or 0
        nats = pc.sum(sequences["nll"]).as_py()
        loss = nats / tokens if tokens else float("nan")
        with np.errstate(over="ignore"):
            perplexity = float(np.exp(loss))
        nonfinite = pc.sum(sequences["nonfinite"]).as_py() or 0
        return {"perplexity": perplexity, "loss": loss, "tokens": tokens, "nonfinite": nonfinite}


def _ragged(values_BT: torch.Tensor, kept_BT: torch.Tensor) -> pa.Array:
    """A list of each row's kept values."""
    offsets = np.concatenate([[0], np.cumsum(kept_BT.sum(1).numpy(force=True))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values_BT[kept_BT].numpy(force=True)))
