"""transformers at its best: the settings of a loop over checkpoints, and the search among them.

A setting is admitted if its losses are as good as those of the model's own logits in the same data
type: otherwise the answer is another one, and its time no yardstick.
B sequences, T tokens, V vocabulary rows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from comparison import Comparison
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, linear_cross_entropy
from transformers import GPTNeoXForCausalLM
from transformers.utils import logging as transformers_logging

transformers_logging.disable_progress_bar()

LINEAR_CROSS_ENTROPY = "F.linear_cross_entropy"
PRUNED = 2.0
"""A setting this many times slower than the best so far is not timed a second time."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run transformers over a checkpoint."""

    dtype: str = "bfloat16"
    attention: str = "sdpa"
    batch: int = 1
    loss: str = "the model's own loss"
    compiled: bool = False
    loading: str = "from_pretrained"

    def __str__(self) -> str:
        parts = [self.loading, self.attention, self.dtype, f"batch {self.batch}", self.loss]
        return ", ".join([*parts, *(["torch.compile"] if self.compiled else [])])


EXACT = Setting(dtype="float32")


def from_pretrained(checkpoint: Path, setting: Setting) -> GPTNeoXForCausalLM:
    """A model as users load it."""
    return GPTNeoXForCausalLM.from_pretrained(
        checkpoint, dtype=getattr(torch, setting.dtype), attn_implementation=setting.attention
    ).eval()


def load_into(model: GPTNeoXForCausalLM, checkpoint: Path) -> None:
    """A checkpoint's weights into a model that is there, from the mapped safetensors file."""
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    model.load_state_dict(tensors)


class Runner:
    """A setting with what it keeps from checkpoint to checkpoint: a compiled model, if any."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._model: GPTNeoXForCausalLM | None = None

    def load(self, checkpoint: Path) -> GPTNeoXForCausalLM:
        """The checkpoint's weights in a new model, or in the one that is kept."""
        if self.setting.loading == "from_pretrained":
            return from_pretrained(checkpoint, self.setting)
        if self._model is None:
            self._model = from_pretrained(checkpoint, self.setting)
            if self.setting.compiled:
                torch.compiler.reset()  # or what was compiled before leads to code for any shape
                self._model.compile(dynamic=False)
            return self._model
        load_into(self._model, checkpoint)
        return self._model

    @torch.inference_mode()
    def mean_nll(self, model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> float:
        """Nats per token, batch by batch."""
        parts = ids_BT.split(self.setting.batch)
        losses = [_MEANS[self.setting.loss](model, part) * len(part) for part in parts]
        return sum(losses) / len(ids_BT)

    def sweep(self, checkpoints: list[Path], ids_BT: torch.Tensor) -> list[float]:
        """The loop over checkpoints: their mean losses."""
        return [self.mean_nll(self.load(path), ids_BT) for path in checkpoints]


def best_sweep(
    comparison: Comparison, case: str, checkpoints: list[Path], ids_BT: torch.Tensor
) -> Runner:
    """The fastest admitted setting on one checkpoint and few tokens; all that was tried is noted.

    Data types by attention first, then batch sizes, the loss, torch.compile and the way to load,
    each with the best so far. The compilation itself is not counted: that is in the peer's favour.
    """
    tried: dict[Setting, float] = {}
    compiled: dict[Setting, Runner] = {}

    def try_all(settings: Iterator[Setting]) -> Setting:
        for setting in settings:
            if setting in tried:
                continue
            runner = Runner(setting)
            model = runner.load(checkpoints[0])
            count = max(setting.batch, 1)
            best = min((s for s in tried.values()), default=float("inf"))
            sequence_s = best_of_two(
                lambda: runner.mean_nll(model, ids_BT[:count]),  # noqa: B023 - called here
                unless_beyond=PRUNED * best * count,
                warm=setting.compiled,
            )
            numbers: dict[str, float | str] = {"s_per_sequence": sequence_s / count}
            admitted = True
            if setting.loss == LINEAR_CROSS_ENTROPY:
                errors = linear_errors(checkpoints[0], setting, ids_BT[:1, :512])
                admitted = errors["error"] <= 2 * errors["error_of_own_logits"] + 1e-6
                numbers |= errors | {"admitted": "yes" if admitted else "no"}
            comparison.calibrated(case, str(setting), numbers)
            if setting.compiled:
                compiled[setting] = runner
            if admitted:
                tried[setting] = sequence_s / count
        return min(tried, key=lambda setting: tried[setting])

    grid = [(d, a) for a in ("sdpa", "eager") for d in ("bfloat16", "float32")]
    best = try_all(Setting(dtype=dtype, attention=attention) for dtype, attention in grid)
    sizes = [size for size in (1, 2, 4) if size <= len(ids_BT)]
    best = try_all(replace(best, batch=size) for size in sizes)
    best = try_all(replace(best, loss=loss) for loss in _MEANS)
    best = try_all(iter([replace(best, loading="load_state_dict", compiled=True)]))
    loading_s = {}
    for loading in ("from_pretrained", "load_state_dict"):
        runner = Runner(replace(best, compiled=False, loading=loading))
        runner.load(checkpoints[0])
        loading_s[loading] = best_of_two(lambda: runner.load(checkpoints[0]))  # noqa: B023
        comparison.calibrated(case, loading, {"s_per_checkpoint": loading_s[loading]})
    fastest = min(loading_s, key=lambda loading: loading_s[loading])
    return compiled.get(best) or Runner(replace(best, loading=fastest))


@torch.inference_mode()
def token_nll(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> torch.Tensor:
    """Nats of each of ids[:, 1:], [N] float32 or better, from the model's own logits."""
    logits_NV = model(ids_BT[:, :-1], use_cache=False).logits.flatten(0, 1)
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return cross_entropy(logits_NV.to(wide), ids_BT[:, 1:].flatten(), reduction="none")


def _own_loss(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> float:
    return float(model(ids_BT, labels=ids_BT, use_cache=False).loss)


def _linear_cross_entropy(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> float:
    return float(_linear_token_nll(model, ids_BT).double().mean())


def _linear_token_nll(model: GPTNeoXForCausalLM, ids_BT: torch.Tensor) -> torch.Tensor:
    h_ND = model.gpt_neox(ids_BT[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    w_VD = model.get_output_embeddings().weight
    return linear_cross_entropy(h_ND, w_VD, ids_BT[:, 1:].flatten(), reduction="none")


_MEANS: dict[str, Callable[[GPTNeoXForCausalLM, torch.Tensor], float]] = {
    "the model's own loss": _own_loss,
    LINEAR_CROSS_ENTROPY: _linear_cross_entropy,
}


@torch.inference_mode()
def linear_errors(checkpoint: Path, setting: Setting, ids_BT: torch.Tensor) -> dict[str, float]:
    """Mean distance of F.linear_cross_entropy's losses from float32, and of the own logits' ones.

    It gives losses in the data type of the logits: bfloat16 has steps of 1/16 at 11 nats.
    """
    model = from_pretrained(checkpoint, setting)
    exact_N = token_nll(from_pretrained(checkpoint, EXACT), ids_BT)
    return {
        "error": float((_linear_token_nll(model, ids_BT) - exact_N).abs().mean()),
        "error_of_own_logits": float((token_nll(model, ids_BT) - exact_N).abs().mean()),
    }


def best_of_two(
    call: Callable[[], object], *, unless_beyond: float = float("inf"), warm: bool = False
) -> float:
    """The faster of two calls; the first only if that is hopeless. `warm` calls once before."""
    if warm:
        call()
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
        if best > unless_beyond:
            break
    return best
