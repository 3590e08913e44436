"""transformers' greedy decoding at its best, and the teacher-forced test that needs none.

B sequences, T tokens.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from comparison import Comparison
from transformers import GPTNeoXForCausalLM
from transformers_peer import PRUNED, Setting, best_of_two, from_pretrained, load_into

PROMPT = NEW = 32
COMPILED = "static cache, torch.compile"
START = 64
"""The batch with which data types are compared."""
Matches = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Decoding:
    """One way to call `generate`; a compiled one keeps its model from checkpoint to checkpoint."""

    dtype: str = "bfloat16"
    attention: str = "sdpa"
    batch: int = 64
    cache: str = "dynamic cache"

    def __str__(self) -> str:
        return f"generate, {self.attention}, {self.dtype}, batch {self.batch}, {self.cache}"


class Decoder:
    """A loop over checkpoints that decodes each prompt and compares with the continuation."""

    def __init__(self, decoding: Decoding) -> None:
        self.decoding = decoding
        self._model: GPTNeoXForCausalLM | None = None

    def load(self, checkpoint: Path) -> GPTNeoXForCausalLM:
        """A new model; for a compiled one, new weights."""
        setting = Setting(dtype=self.decoding.dtype, attention=self.decoding.attention)
        if self.decoding.cache != COMPILED:
            return from_pretrained(checkpoint, setting)
        if self._model is None:
            self._model = from_pretrained(checkpoint, setting)
            torch.compiler.reset()
            self._model.forward = torch.compile(self._model.forward, dynamic=False)
        else:
            load_into(self._model, checkpoint)
        return self._model

    @torch.inference_mode()
    def matches(self, model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> Matches:
        """Whether each decoded token is the true one, [B, NEW]."""
        right = []
        options = {"cache_implementation": "static"} if self.decoding.cache == COMPILED else {}
        for part_BT in ids_BT.split(self.decoding.batch):
            prompt_BT = part_BT[:, :PROMPT]
            decoded_BT = model.generate(
                prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
                **options,
            )
            right.append(decoded_BT[:, PROMPT:] == part_BT[:, PROMPT : PROMPT + NEW])
        return torch.cat(right).numpy()

    def sweep(self, checkpoints: list[Path], ids_BT: torch.Tensor) -> list[Matches]:
        """The loop over checkpoints."""
        return [self.matches(self.load(path), ids_BT) for path in checkpoints]


class TeacherForced:
    """Flags by one forward pass each: every arg max right, given the true tokens before it."""

    def __init__(self, decoding: Decoding) -> None:
        self.setting = Setting(decoding.dtype, decoding.attention, decoding.batch)

    @torch.inference_mode()
    def sweep(self, checkpoints: list[Path], ids_BT: torch.Tensor) -> list[Matches]:
        """[B, NEW] for each checkpoint."""
        found = []
        for path in checkpoints:
            model = from_pretrained(path, self.setting)
            right = []
            for part_BT in ids_BT[:, : PROMPT + NEW].split(self.setting.batch):
                logits = model(part_BT[:, :-1], use_cache=False, logits_to_keep=NEW).logits
                right.append(logits.argmax(-1) == part_BT[:, PROMPT:])
            found.append(torch.cat(right).numpy())
        return found


def best_decoding(
    comparison: Comparison, case: str, checkpoint: Path, ids_BT: torch.Tensor
) -> Decoder:
    """The fastest setting on one checkpoint: types by attention, then batches, then compiled.

    Batches grow as long as that helps; a smaller one is tried where a larger one does not.
    """
    tried: dict[Decoding, float] = {}

    def try_it(decoding: Decoding) -> bool:
        """Time it; whether it is the best so far."""
        decoder, few_BT = Decoder(decoding), ids_BT[: decoding.batch]
        model = decoder.load(checkpoint)
        best_s = min(tried.values(), default=float("inf"))
        elapsed_s = best_of_two(
            lambda: decoder.matches(model, few_BT),
            unless_beyond=PRUNED * best_s * len(few_BT),
            warm=decoding.cache == COMPILED,
        )
        tried[decoding] = elapsed_s / len(few_BT)
        comparison.calibrated(case, str(decoding), {"s_per_sequence": tried[decoding]})
        return tried[decoding] < best_s

    def best() -> Decoding:
        return min(tried, key=lambda decoding: tried[decoding])

    for attention in ("sdpa", "eager"):
        for dtype in ("bfloat16", "float32"):
            try_it(Decoding(dtype, attention, min(START, len(ids_BT))))
    first = best()
    for batch in (128, 256, 512):
        if batch > len(ids_BT) or not try_it(replace(first, batch=batch)):
            break
    if best() == first:
        try_it(replace(first, batch=first.batch // 2))
    try_it(replace(best(), cache=COMPILED))
    return Decoder(best())
