"""TransformerLens, with which many studies of Pythia are made, against ours on the same tokens.

B sequences, T tokens, V vocabulary rows.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import Comparison, Effort, Ours, timed
from forms import sweep_work, timed_dtypes
from random_series import RandomSeries
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast
from transformers_peer import SCREENED

import pythia_fast
from pythia_fast.suite import Architecture

FORMS = {"quick": (2, 128), "standard": (2, 2048), "full": (16, 2048)}
OPTIONS = {"return_type": "logits", "prepend_bos": False}


def test_token_losses(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    shape_of_70m: Architecture,
) -> None:
    """The loss of each token, from float32 logits: its own losses are rounded to bfloat16."""
    sequences, tokens = FORMS[effort.name]
    checkpoint = random_series("70m", 1) / "step0"
    ids = np.random.default_rng(0).integers(0, 50_254, (sequences, tokens))
    ids_BT = torch.from_numpy(ids)
    dtype, name, peer = fastest(comparison, checkpoint, ids_BT)
    started = time.perf_counter()
    expected = peer()
    cases = []
    for own in timed_dtypes():
        model = pythia_fast.load(checkpoint.parent, 0, dtype=own)
        np.testing.assert_allclose(model.nll(ids).double().mean(), expected.mean(), rtol=1e-3)
        cases.append(
            Ours(
                f"losses of {sequences} x {tokens} tokens, 70m, {own}",
                lambda m=model: m.nll(ids),
                sweep_work(shape_of_70m, 1, sequences, tokens, own),
            )
        )
    round_s = time.perf_counter() - started
    work = sweep_work(shape_of_70m, 1, sequences, tokens, dtype)
    comparison.run_all(
        benchmark,
        cases,
        {name: peer},
        cache="model in memory",
        round_s=round_s,
        peer_work={name: work},
    )


def fastest(
    comparison: Comparison, checkpoint: Path, ids_BT: torch.Tensor
) -> tuple[str, str, Callable[[], torch.Tensor]]:
    """Data type, name and call of the best: of two data types, with few tokens, then batches."""
    bridges = {dtype: make_bridge(checkpoint, dtype) for dtype in ("bfloat16", "float32")}

    def sequence_s(dtype: str, few_BT: torch.Tensor) -> float:
        bridge, batch = bridges[dtype], len(few_BT)
        losses(bridge, few_BT, batch)
        elapsed_s = timed(lambda: losses(bridge, few_BT, batch)) / batch
        setting = {"tokens": few_BT.numel(), "s_per_sequence": elapsed_s}
        comparison.calibrated("TransformerLens, 70m", name_of(dtype, batch), setting)
        return elapsed_s

    dtype = min(bridges, key=lambda dtype: sequence_s(dtype, ids_BT[:1, :SCREENED]))
    batch = min((1, 2), key=lambda batch: sequence_s(dtype, ids_BT[:batch]))
    bridge = bridges[dtype]
    return dtype, name_of(dtype, batch), lambda: losses(bridge, ids_BT, batch)


def name_of(dtype: str, batch: int) -> str:
    """The peer in a setting."""
    return f"TransformerLens: TransformerBridge, {dtype}, batch {batch}"


def make_bridge(checkpoint: Path, dtype: str) -> TransformerBridge:
    """Its wrapper around transformers' eager model; a tokenizer must be there, ids suffice us."""
    words = Tokenizer(models.WordLevel({"w0": 0}, unk_token="w0"))
    tokens = {"bos_token": "w0", "eos_token": "w0", "pad_token": "w0"}
    PreTrainedTokenizerFast(tokenizer_object=words, **tokens).save_pretrained(checkpoint)
    kind = getattr(torch, dtype)
    return TransformerBridge.boot_transformers(str(checkpoint), dtype=kind, device="cpu")


@torch.inference_mode()
def losses(bridge: TransformerBridge, ids_BT: torch.Tensor, batch: int) -> torch.Tensor:
    """Nats of each of ids[:, 1:], [B, T - 1] float32."""
    parts = []
    for part_BT in ids_BT.split(batch):
        logits_BTV = bridge(part_BT[:, :-1], **OPTIONS).float()
        parts.append(cross_entropy(logits_BTV.mT, part_BT[:, 1:], reduction="none"))
    return torch.cat(parts)
