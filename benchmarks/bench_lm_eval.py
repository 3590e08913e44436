"""lm-evaluation-harness' `hf` model against ours, on the same requests and tokens.

Its tokenizer is a local one whose words are the ids, so that both sides see the same tokens and
no time goes into text. B requests, T tokens.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import Comparison, Effort, Ours
from forms import sweep_work, timed_dtypes
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from random_series import RandomSeries
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers_peer import Setting, from_pretrained

import pythia_fast
from pythia_fast.model import Model
from pythia_fast.suite import Architecture

# Texts of 2048 tokens, and questions of 96 to 128 tokens with four answers of 4 to 8 each.
FORMS = {"quick": (1, 2), "standard": (2, 16), "full": (16, 128)}
VOCABULARY, CONTEXT = 50_254, 2048
ANSWERS = 4
Lists = list[list[int]]


@dataclass(frozen=True, slots=True)
class HfSetting:
    """How the `hf` model runs; float32 softmax or its losses are rounded to bfloat16."""

    dtype: str = "bfloat16"
    batch: int = 1
    compiled: bool = False

    def __str__(self) -> str:
        compiled = ", torch.compile" if self.compiled else ""
        return f"lm-eval hf, sdpa, {self.dtype}, float32 softmax, batch {self.batch}{compiled}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words "w0" to "w50253", split at spaces."""
    vocabulary = {f"w{token}": token for token in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")


@pytest.fixture
def checkpoint(random_series: RandomSeries) -> Path:
    return random_series("70m", 1) / "step0"


MakeHf = Callable[[HfSetting], HFLM]


@pytest.fixture
def make_hf(checkpoint: Path, tokenizer: PreTrainedTokenizerFast) -> MakeHf:
    """The harness' model around transformers' one, in a setting."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    def make(setting: HfSetting) -> HFLM:
        model = from_pretrained(checkpoint, Setting(dtype=setting.dtype))
        if setting.compiled:
            torch.compiler.reset()
            model.compile(dynamic=False)
        return HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=setting.batch,
            max_length=CONTEXT,
            softmax_dtype="float32",
            device="cpu",
        )

    return make


def test_rolling(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    make_hf: MakeHf,
    checkpoint: Path,
    shape_of_70m: Architecture,
) -> None:
    """Whole texts, as in wikitext perplexity: each token given all before it."""
    count, _ = FORMS[effort.name]
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (count, CONTEXT))
    requests = [_request("loglikelihood_rolling", (_text(row),)) for row in ids.tolist()]
    batches = [size for size in (1, 2, 4) if size <= count]
    setting = best_setting(
        comparison,
        "loglikelihood_rolling, 70m",
        lambda setting: make_hf(setting).loglikelihood_rolling,
        requests,
        batches,
        compiled=True,
    )
    hf = make_hf(setting)
    rows = np.concatenate([np.zeros((count, 1), np.int64), ids], axis=1)  # its prefix token

    def ours(model: Model) -> list[float]:
        return (-model.nll(rows).double().sum(1)).tolist()

    def theirs() -> list[float]:
        return hf.loglikelihood_rolling(requests, disable_tqdm=True)

    started = time.perf_counter()
    expected = theirs()
    cases = []
    for dtype in timed_dtypes():
        model = pythia_fast.load(checkpoint.parent, 0, dtype=dtype)
        np.testing.assert_allclose(ours(model), expected, rtol=1e-3)
        cases.append(
            Ours(
                f"loglikelihood_rolling, 70m, {count} texts of {CONTEXT} tokens, {dtype}",
                lambda m=model: ours(m),
                sweep_work(shape_of_70m, 1, count, CONTEXT + 1, dtype),
            )
        )
    round_s = time.perf_counter() - started
    comparison.run_all(
        benchmark,
        cases,
        {str(setting): theirs},
        peer_work={str(setting): sweep_work(shape_of_70m, 1, count, CONTEXT + 1, setting.dtype)},
        cache="model in memory",
        round_s=round_s,
    )


def test_multiple_choice(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    make_hf: MakeHf,
    checkpoint: Path,
) -> None:
    """Questions with four answers each, of several lengths: log-likelihood and greedy or not."""
    _, count = FORMS[effort.name]
    random = np.random.default_rng(1)
    pairs: list[tuple[list[int], list[int]]] = []
    for _ in range(count):
        context = random.integers(1, VOCABULARY, random.integers(96, 129)).tolist()
        for _ in range(ANSWERS):
            words = random.integers(1, VOCABULARY, random.integers(4, 9)).tolist()
            pairs.append((context, words))
    requests = [_request("loglikelihood", (_text(c), " " + _text(a))) for c, a in pairs]
    setting = best_setting(
        comparison,
        "loglikelihood, 70m",
        lambda setting: make_hf(setting).loglikelihood,
        requests,
        [size for size in (8, 16, 32, 64) if size <= len(pairs)],
        compiled=False,  # every batch has another shape
    )
    hf = make_hf(setting)

    def theirs() -> list[tuple[float, bool]]:
        return hf.loglikelihood(requests, disable_tqdm=True)

    started = time.perf_counter()
    expected = np.array([value for value, _ in theirs()])
    cases = []
    for dtype in timed_dtypes():
        model = pythia_fast.load(checkpoint.parent, 0, dtype=dtype)
        values = np.array([value for value, _ in answer(model, pairs)])
        np.testing.assert_allclose(values, expected, rtol=5e-3)
        cases.append(
            Ours(
                f"loglikelihood, 70m, {count} questions with {ANSWERS} answers, {dtype}",
                lambda m=model: answer(m, pairs),
            )
        )
    round_s = time.perf_counter() - started
    comparison.run_all(
        benchmark, cases, {str(setting): theirs}, cache="model in memory", round_s=round_s
    )


def answer(model: Model, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of each continuation, in batches of like length, padded behind."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    for first in range(0, len(order), 16):
        chosen = [pairs[i] for i in order[first : first + 16]]
        start = min(len(context) for context, _ in chosen) - 1
        longest = max(len(context) + len(words) for context, words in chosen)
        ids_BT = torch.zeros(len(chosen), longest, dtype=torch.int64)
        for row, (context, words) in enumerate(chosen):
            ids_BT[row, : len(context) + len(words)] = torch.tensor(context + words)
        scores = model.score(ids_BT, start=start)
        for row, (context, words) in enumerate(chosen):
            begin = len(context) - 1 - start
            cut = slice(begin, begin + len(words))
            greedy = bool((scores.argmax[row, cut] == torch.tensor(words)).all())
            found[order[first + row]] = (-float(scores.nll[row, cut].double().sum()), greedy)
    return found


def best_setting(
    comparison: Comparison,
    case: str,
    bind: Callable[[HfSetting], Callable[..., object]],
    requests: list[Instance],
    batches: list[int],
    *,
    compiled: bool,
) -> HfSetting:
    """The fastest data type, then batch size while larger ones help, then torch.compile."""
    tried: dict[HfSetting, float] = {}

    def try_all(settings: list[HfSetting]) -> HfSetting:
        for setting in settings:
            if setting in tried:
                continue
            call, few = bind(setting), requests[: setting.batch]
            call(few, disable_tqdm=True)
            started = time.perf_counter()
            call(few, disable_tqdm=True)
            tried[setting] = (time.perf_counter() - started) / len(few)
            comparison.calibrated(case, str(setting), {"s_per_request": tried[setting]})
        return min(tried, key=lambda setting: tried[setting])

    best = try_all([HfSetting(dtype, batches[0]) for dtype in ("bfloat16", "float32")])
    for batch in batches[1:]:
        larger = replace(best, batch=batch)
        best = try_all([larger])
        if best != larger:
            break
    return try_all([replace(best, compiled=True)]) if compiled else best


def _request(kind: str, arguments: tuple[str, ...]) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def _text(ids: list[int]) -> str:
    return " ".join(f"w{token}" for token in ids)
