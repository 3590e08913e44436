"""transformers at its best: the settings of a loop over checkpoints, and the search among them.

A setting is admitted if its losses are as good as those of the model's own logits in the same data
type: otherwise the answer is another one, and its time no yardstick.
B sequences, T tokens, V vocabulary rows.
"""

import time
from collections.abc import Callable, Iterable, Mapping
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
SCREENED = 512
"""Tokens with which data types and ways of attention are tried first."""
PRUNED = 2.0
"""What takes so many times as long as the best so far is not tried again, nor with more tokens."""


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


class Search:
    """Times settings on one checkpoint and notes each."""

    def __init__(self, comparison: Comparison, case: str, checkpoint: Path) -> None:
        self._comparison, self._case, self._checkpoint = comparison, case, checkpoint

    def runner_s(
        self,
        runner: Runner,
        ids_BT: torch.Tensor,
        *,
        best_s: float = float("inf"),
        numbers: Mapping[str, float | str] | None = None,
    ) -> float:
        """Seconds a sequence, loading not counted; `best_s` is the best so far."""
        model = runner.load(self._checkpoint)
        elapsed_s = best_of_two(
            lambda: runner.mean_nll(model, ids_BT),
            unless_beyond=PRUNED * best_s * len(ids_BT),
            warm=runner.setting.compiled,
        )
        noted = {"tokens": ids_BT.numel(), "s_per_sequence": elapsed_s / len(ids_BT)}
        self._comparison.calibrated(self._case, str(runner.setting), noted | dict(numbers or {}))
        return elapsed_s / len(ids_BT)

    def hopeful(self, settings: Iterable[Setting], ids_BT: torch.Tensor) -> dict[Setting, float]:
        """Those that are not hopeless, and their seconds a sequence."""
        timed: dict[Setting, float] = {}
        for setting in settings:
            best_s = min(timed.values(), default=float("inf"))
            timed[setting] = self.runner_s(Runner(setting), ids_BT, best_s=best_s)
        limit_s = PRUNED * min(timed.values())
        return {setting: elapsed_s for setting, elapsed_s in timed.items() if elapsed_s <= limit_s}

    def admitted_s(self, setting: Setting, ids_BT: torch.Tensor) -> float:
        """Seconds a sequence; infinite if the losses are not those of the model's own logits."""
        errors = linear_errors(self._checkpoint, setting, ids_BT[:1, :SCREENED])
        admitted = errors["error"] <= 2 * errors["error_of_own_logits"] + 1e-6
        numbers = errors | {"admitted": "yes" if admitted else "no"}
        elapsed_s = self.runner_s(Runner(setting), ids_BT, numbers=numbers)
        return elapsed_s if admitted else float("inf")

    def loading_s(self, runner: Runner) -> float:
        """Seconds a checkpoint, once there is a model."""
        runner.load(self._checkpoint)
        elapsed_s = best_of_two(lambda: runner.load(self._checkpoint))
        self._comparison.calibrated(
            self._case, runner.setting.loading, {"s_per_checkpoint": elapsed_s}
        )
        return elapsed_s


def best_sweep(
    comparison: Comparison, case: str, checkpoints: list[Path], ids_BT: torch.Tensor
) -> Runner:
    """The fastest admitted setting on one checkpoint and few tokens; all that was tried is noted.

    Data types by attention, with few tokens and then, without the hopeless ones, with a whole
    sequence; batch sizes as long as they help; the loss, torch.compile and the way to load, each
    with the best so far. The compilation itself is not counted: that is in the peer's favour.
    """
    search = Search(comparison, case, checkpoints[0])
    grid = [Setting(d, a) for a in ("sdpa", "eager") for d in ("bfloat16", "float32")]
    timed = search.hopeful(search.hopeful(grid, ids_BT[:1, :SCREENED]), ids_BT[:1])
    best = min(timed, key=lambda setting: timed[setting])
    best_s = timed[best]
    for batch in (2, 4):
        larger = replace(best, batch=batch)
        if batch > len(ids_BT):
            break
        larger_s = search.runner_s(Runner(larger), ids_BT[:batch], best_s=best_s)
        if larger_s >= best_s:
            break
        best, best_s = larger, larger_s
    few_BT = ids_BT[: best.batch]
    fused = replace(best, loss=LINEAR_CROSS_ENTROPY)
    if (fused_s := search.admitted_s(fused, few_BT)) < best_s:
        best, best_s = fused, fused_s
    compiled = Runner(replace(best, loading="load_state_dict", compiled=True))
    if search.runner_s(compiled, few_BT) <= best_s:
        return compiled
    ways = [Runner(replace(best, loading=way)) for way in ("from_pretrained", "load_state_dict")]
    return min(ways, key=search.loading_s)


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
