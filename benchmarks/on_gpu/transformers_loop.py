"""transformers on a GPU: a loop over checkpoints, and its `generate`, each in its best setting.

B sequences, T tokens, V vocabulary rows.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXForCausalLM
from transformers.utils import logging as transformers_logging

from on_gpu.bench import Bench

transformers_logging.disable_progress_bar()

Way = TypeVar("Way")

BATCHES = (2, 8, 32)
"""Sequences of a pass that are tried."""
PROMPT = NEW = 32
GENERATED = (256, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Loop:
    """One way to run the checkpoints of a series, in float16, with SDPA."""

    device: torch.device
    batch: int = BATCHES[0]
    compiled: bool = False

    def __str__(self) -> str:
        way = (
            "one model, torch.compile, weights read into it" if self.compiled else "from_pretrained"
        )
        return f"transformers: {way}, sdpa, {dtype_on(self.device)}, batch {self.batch}"


class Runner:
    """A loop with what it keeps from checkpoint to checkpoint: a compiled model, if any."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._model: GPTNeoXForCausalLM | None = None

    def load(self, checkpoint: Path) -> GPTNeoXForCausalLM:
        """The checkpoint in a new model, or in the compiled one."""
        if not self.loop.compiled:
            return from_pretrained(checkpoint, self.loop.device)
        if self._model is None:
            self._model = from_pretrained(checkpoint, self.loop.device)
            self._model.compile(dynamic=False)
        else:
            read_into(self._model, checkpoint)
        return self._model

    @torch.inference_mode()
    def mean_nll(self, model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> float:
        """Nats per token: sums stay on the device until the last."""
        parts = ids_BT.split(self.loop.batch)
        sums = [token_nll(model, part.to(self.loop.device)).double().sum() for part in parts]
        return float(torch.stack(sums).sum() / (len(ids_BT) * (ids_BT.shape[1] - 1)))

    def sweep(self, checkpoints: Iterable[Path], ids_BT: torch.Tensor) -> list[float]:
        """Mean losses."""
        return [self.mean_nll(self.load(path), ids_BT) for path in checkpoints]

    def free(self) -> None:
        """Give back the model's memory."""
        self._model = None
        torch.compiler.reset()


def dtype_on(device: torch.device) -> str:
    """float16 on a GPU; a rehearsal is in float32."""
    return "float16" if device.type == "cuda" else "float32"


def from_pretrained(checkpoint: Path, device: torch.device) -> GPTNeoXForCausalLM:
    """As users load a model: straight to the GPU where there is accelerate, which that needs."""
    model = GPTNeoXForCausalLM.from_pretrained(
        checkpoint,
        dtype=getattr(torch, dtype_on(device)),
        attn_implementation="sdpa",
        device_map=device if find_spec("accelerate") else None,
    )
    return model.to(device).eval()


def read_into(model: GPTNeoXForCausalLM, checkpoint: Path) -> None:
    """A checkpoint's weights into a model that is there, file by file straight to its device."""
    for path in sorted(checkpoint.glob("*.safetensors")):
        tensors = load_file(path, device=str(model.device))
        if "embed_out.weight" in tensors:
            tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
        model.load_state_dict(tensors, strict=False)


@torch.inference_mode()
def token_nll(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> torch.Tensor:
    """Nats of each of ids[:, 1:], [N], from float32 logits."""
    logits_NV = model(ids_BT[:, :-1], use_cache=False).logits.flatten(0, 1)
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return cross_entropy(logits_NV.to(wide), ids_BT[:, 1:].flatten(), reduction="none")


def best_loop(bench: Bench, case: str, checkpoint: Path, ids_BT: torch.Tensor) -> Loop:
    """The batch size with which a checkpoint takes least time; all that were tried are noted."""
    model = from_pretrained(checkpoint, bench.device)

    def try_it(loop: Loop) -> float:
        few_BT = ids_BT[: loop.batch]
        runner = Runner(loop)
        return _timed(bench, case, loop, len(few_BT), lambda: runner.mean_nll(model, few_BT))

    batches = [b for b in BATCHES if b <= len(ids_BT)] or [len(ids_BT)]
    return _fastest([Loop(bench.device, batch) for batch in batches], try_it)


@torch.inference_mode()
def exact_and_own(
    checkpoint: Path, ids_BT: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token's nats in float32 and in float16, [N] each, by transformers."""
    model = from_pretrained(checkpoint, device)
    own_N = token_nll(model, ids_BT.to(device))
    return token_nll(model.float(), ids_BT.to(device)), own_N


@dataclass(frozen=True, slots=True)
class Decoding:
    """One way to call `generate`, greedily."""

    batch: int
    static: bool = False
    """A static cache, for which transformers compiles the step by itself."""

    def __str__(self) -> str:
        cache = "static cache, compiled" if self.static else "dynamic cache"
        return f"transformers' generate, sdpa, float16, batch {self.batch}, {cache}"


@torch.inference_mode()
def matches(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor, way: Decoding) -> torch.Tensor:
    """Whether each decoded token is the true one, bool [B, NEW] on the CPU."""
    right = []
    options = {"cache_implementation": "static"} if way.static else {}
    for part_BT in ids_BT.split(way.batch):
        prompt_BT = part_BT[:, :PROMPT].to(model.device)
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
        right.append(decoded_BT[:, PROMPT:].cpu() == part_BT[:, PROMPT : PROMPT + NEW])
    return torch.cat(right)


def best_decoding(bench: Bench, case: str, checkpoint: Path, ids_BT: torch.Tensor) -> Decoding:
    """The batch size with which a checkpoint takes least time, then the same with a static cache.

    That is tried only where the theme has a minute left: it compiles.
    """
    model = from_pretrained(checkpoint, bench.device)

    def try_it(way: Decoding) -> float:
        few_BT = ids_BT[: way.batch]
        if way.static:
            matches(model, few_BT, way)
        return _timed(bench, case, way, len(few_BT), lambda: matches(model, few_BT, way))

    sizes = [b for b in GENERATED if b <= len(ids_BT)] or [len(ids_BT)]
    best = _fastest([Decoding(batch) for batch in sizes], try_it)
    if bench.rehearsal or bench.left_s < 60:
        return best
    return _fastest([best, replace(best, static=True)], try_it)


def sweep_matches(
    checkpoints: Iterable[Path], ids_BT: torch.Tensor, way: Decoding, device: torch.device
) -> list[torch.Tensor]:
    """The loop over checkpoints, [B, NEW] each."""
    return [matches(from_pretrained(path, device), ids_BT, way) for path in checkpoints]


def _fastest(ways: list[Way], try_it: Callable[[Way], float]) -> Way:
    """The way with the least seconds; one that does not fit into memory has infinitely many."""
    elapsed_s = {}
    for way in ways:
        try:
            elapsed_s[way] = try_it(way)
        except torch.OutOfMemoryError:
            elapsed_s[way] = float("inf")
            torch.cuda.empty_cache()
    return min(ways, key=lambda way: elapsed_s[way])


def _timed(
    bench: Bench, case: str, way: object, sequences: int, call: Callable[[], object]
) -> float:
    """Seconds a sequence, the second of two calls; noted."""
    call()
    begin_s = time.perf_counter()
    call()  # ends with numbers on the CPU
    elapsed_s = (time.perf_counter() - begin_s) / sequences
    bench.calibrated(case, str(way), {"s_per_sequence": elapsed_s})
    return elapsed_s
