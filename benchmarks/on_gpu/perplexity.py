"""A whole perplexity sweep, loading and results included, beside transformers' loop.

B sequences, T tokens.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from forms import forward_flops
from roofline import Work

import pythia_fast
from on_gpu.bench import Bench, WrongAnswerError
from on_gpu.forms import Form, for_each
from on_gpu.transformers_loop import Loop, Runner, best_loop, dtype_on, exact_and_own
from pythia_fast.suite import Architecture

TOKENS = 2049
"""The last is only a label."""
COMPILING_S = 90.0
"""torch.compile is tried where the theme has so much time left."""
VLLM_S = 120.0


# 12b takes three minutes, which it has where this theme is the only one.
FORMS = (
    Form("70m", 4, 512, TOKENS - 1, {"perplexity": 4.0}, each_s=40),
    Form("410m", 3, 256, TOKENS - 1, {"perplexity": 2.5}, each_s=40),
    Form("1.4b", 2, 128, TOKENS - 1, each_s=30),
    Form("12b", 2, 128, TOKENS - 1, {"perplexity": 1.5}, each_s=180),
)
TINY = (Form("tiny", 2, 3, TOKENS - 1),)


def run(bench: Bench) -> None:
    """Size by size: the answer, then the sweep, the pass alone, and who else is installed."""

    def measure(form: Form, series: Path) -> None:
        _sweeps(bench, form, series)
        with bench.attempt(f"passes of {form}"):
            _passes(bench, form, series)
        if find_spec("vllm") and bench.left_s > VLLM_S:
            with bench.attempt(f"vLLM, {form}"):
                _vllm(bench, form, series)

    for_each(bench, TINY if bench.rehearsal else FORMS, measure)


def _sweeps(bench: Bench, form: Form, series: Path) -> None:
    tokens = 17 if bench.rehearsal else TOKENS
    ids_BT = bench.ids(form.architecture.vocab_rows, form.sequences, tokens).cpu()
    paths = [series / f"step{step}" for step in range(form.checkpoints)]
    kind = dtype_on(bench.device)
    errors = _answer(bench, series, ids_BT[:1], kind)
    loop = best_loop(bench, str(form), paths[0], ids_BT)
    runs = itertools.count()
    means: dict[str, list[float]] = {}

    def ours() -> None:
        result = pythia_fast.sweep(
            series,
            range(form.checkpoints),
            tokens=ids_BT.numpy().astype(np.uint16),
            sequences=form.sequences,
            dtype=kind,
            device=bench.device,
            out=series.parent / f"run{next(runs)}",
            progress=False,
        )
        means["ours"] = [row["loss"] for row in result.table.to_pylist()]

    def theirs(runner: Runner) -> None:
        means[str(runner.loop)] = runner.sweep(paths, ids_BT)

    runners = [Runner(loop)]
    if not bench.rehearsal and bench.left_s > COMPILING_S:
        runners.append(Runner(Loop(bench.device, loop.batch, compiled=True)))
    peers: dict[str, Callable[[], object]] = {
        str(runner.loop): partial(theirs, runner) for runner in runners
    }
    asked = form.targets.get("perplexity")
    flops = form.checkpoints * forward_flops(form.architecture, form.sequences, tokens - 1)
    counted = form.checkpoints * form.sequences * (tokens - 1)
    bench.race(
        f"sweep, {form}, {kind}",
        ours,
        peers,
        work=Work(flops, dtype="float16"),
        target=dict.fromkeys(peers, asked) if asked is not None else {},
        numbers={"tokens": counted, **errors},
        cache="files in memory",
        clock=bench.wall,
        case_s=form.each_s / 2,
        fewest=1,
        warm=form.size != "12b",
    )
    apart = max(
        abs(mine - other)
        for name, of_peer in means.items()
        for mine, other in zip(means["ours"], of_peer, strict=True)
    )
    if not apart <= 2 * (errors["error"] + errors["peers_error"]) + 1e-6:
        raise WrongAnswerError(f"mean losses of whole checkpoints are {apart:.3g} apart: {means}")
    for runner in runners:
        runner.free()


def _answer(bench: Bench, series: Path, ids_BT: torch.Tensor, kind: str) -> dict[str, float]:
    """A sequence's losses: as near to float32 as transformers in the same data type."""
    exact_N, own_N = exact_and_own(series / "step0", ids_BT, bench.device)
    model = pythia_fast.load(series, 0, dtype=kind, device=bench.device)
    nll_N = model.nll(ids_BT).flatten()
    errors = [float((x_N.double() - exact_N.double()).abs().mean()) for x_N in (nll_N, own_N)]
    if not errors[0] <= 2 * errors[1] + 1e-6:
        raise WrongAnswerError(f"mean error {errors[0]:.3g}, that of transformers {errors[1]:.3g}")
    return {"error": errors[0], "peers_error": errors[1]}


def _passes(bench: Bench, form: Form, series: Path) -> None:
    """A checkpoint that is there: what of the matrix peak its losses reach, without any loading."""
    tokens = 17 if bench.rehearsal else TOKENS
    model = pythia_fast.load(series, 0, dtype=dtype_on(bench.device), device=bench.device)
    ids_BT = bench.ids(form.architecture.vocab_rows, form.sequences, tokens)
    flops = forward_flops(form.architecture, form.sequences, tokens - 1)
    bench.race(
        f"losses alone, {form.size}, {form.sequences} x {tokens - 1}",
        lambda: model.nll(ids_BT),
        {},
        work=Work(flops, dtype="float16"),
        numbers={"asked_share_of_roof": 0.6} if _large(form.architecture) else {},
        clock=bench.wall,
        case_s=4.0,
        fewest=3,
    )


def _large(architecture: Architecture) -> bool:
    return architecture.parameters > 1.2e9


def _vllm(bench: Bench, form: Form, series: Path) -> None:
    """The `prompt_logprobs` of vLLM, of a checkpoint that is loaded, beside our losses of it."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    few = min(form.sequences, 64)
    ids_BT = bench.ids(form.architecture.vocab_rows, few, TOKENS - 1).cpu()
    model = pythia_fast.load(series, 0, dtype="float16", device=bench.device)
    engine = LLM(
        str(series / "step0"),
        skip_tokenizer_init=True,
        dtype="float16",
        gpu_memory_utilization=0.5,
        max_model_len=form.architecture.max_positions,
        enable_prefix_caching=False,
    )
    # One token has to be written, so a prompt is a position shorter than the longest input.
    prompts = [{"prompt_token_ids": row[:-1]} for row in ids_BT.tolist()]
    wanted = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)

    def theirs() -> list[float]:
        outputs = engine.generate(prompts, wanted, use_tqdm=False)
        return [_mean(output.prompt_logprobs, output.prompt_token_ids) for output in outputs]

    def ours() -> list[float]:
        return model.nll(ids_BT[:, :-1]).mean(1).tolist()

    apart = max(abs(a - b) for a, b in zip(ours(), theirs(), strict=True))
    if not apart <= 1e-2:
        raise WrongAnswerError(f"vLLM's mean losses are {apart:.3g} from ours")
    bench.race(
        f"losses of a loaded checkpoint, {form.size}, {few} x {TOKENS - 2}",
        ours,
        {"vLLM, prompt_logprobs, float16": theirs},
        clock=bench.wall,
        case_s=10.0,
        fewest=2,
    )


def _mean(logprobs: Sequence[dict[int, object] | None], ids: Sequence[int]) -> float:
    """Nats a token; the first has none."""
    pairs = zip(logprobs[1:], ids[1:], strict=True)
    return -statistics.fmean(of_place[token].logprob for of_place, token in pairs)  # type: ignore
