"""TransformerLens, with which many studies of Pythia are made, against ours on the same tokens.

B sequences, T tokens, V vocabulary rows.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import Comparison, Effort, Ours
from conftest import MakeSeries
from forms import offered_dtypes, sweep_work
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

import pythia_fast
from pythia_fast.suite import Architecture

FORMS = {"quick": (1, 128), "standard": (2, 2048), "full": (16, 2048)}
OPTIONS = {"return_type": "logits", "prepend_bos": False}


def test_token_losses(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: MakeSeries,
    shape_of_70m: Architecture,
) -> None:
    """The loss of each token, from float32 logits: its own losses are rounded to bfloat16."""
    sequences, tokens = FORMS[effort.name]
    checkpoint = random_series("70m", 1) / "step0"
    ids = np.random.default_rng(0).integers(0, 50_254, (sequences, tokens))
    ids_BT = torch.from_numpy(ids)
    dtype, name, peer = fastest(comparison, checkpoint, ids_BT)
    expected = peer()
    cases = []
    for own in offered_dtypes():
        model = pythia_fast.load(checkpoint.parent, dtype=own)
        np.testing.assert_allclose(model.nll(ids).double().mean(), expected.mean(), rtol=1e-3)
        cases.append(
            Ours(
                f"losses of {sequences} x {tokens} tokens, 70m, {own}",
                lambda m=model: m.nll(ids),
                sweep_work(shape_of_70m, 1, sequences, tokens, own),
            )
        )
    work = sweep_work(shape_of_70m, 1, sequences, tokens, dtype)
    comparison.run_all(
        benchmark, cases, {name: peer}, cache="model in memory", peer_work={name: work}
    )


def fastest(
    comparison: Comparison, checkpoint: Path, ids_BT: torch.Tensor
) -> tuple[str, str, Callable[[], torch.Tensor]]:
    """Data type, name and call of the best of two data types by two batch sizes."""
    timed = []
    for dtype in ("bfloat16", "float32"):
        bridge = make_bridge(checkpoint, dtype)
        for batch in (1, 2):
            few = ids_BT[:batch]
            losses(bridge, few, batch)
            started = time.perf_counter()
            losses(bridge, few, batch)
            elapsed_s = (time.perf_counter() - started) / len(few)
            name = f"TransformerLens: TransformerBridge, {dtype}, batch {batch}"
            comparison.calibrated("TransformerLens, 70m", name, {"s_per_sequence": elapsed_s})
            timed.append((elapsed_s, dtype, name, bridge, batch))
    _, dtype, name, bridge, batch = min(timed, key=lambda each: each[0])
    return dtype, name, lambda: losses(bridge, ids_BT, batch)


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
