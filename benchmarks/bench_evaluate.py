"""Checkpoints on the harness's tasks: its `hf` model in a loop against `pythia_fast.evaluate`.

Questions with four answers, last words and whole texts, as in arc_easy, lambada and wikitext. The
tokenizer's words are the ids, so that both sides see the same tokens and little time goes into
text. The loop is at its best: one model stays, the weights are read into it, the tasks are loaded
once, and data type and batch are those that were fastest.
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
from comparison import Comparison, Effort, Ours
from forms import multiplied_dtypes, timed_dtypes
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from random_series import RandomSeries
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers_peer import Setting, from_pretrained, load_into

import pythia_fast
from pythia_fast.evaluation.quiet import quiet_harness
from pythia_fast.tokens.sources import END_OF_TEXT

# Checkpoints, questions and last words, texts and their tokens.
FORMS = {"quick": (2, 2, 1, 256), "standard": (2, 16, 1, 1024), "full": (8, 32, 1, 2048)}
VOCABULARY, CONTEXT = 50_254, 2048
ANSWERS = 4
TARGET = 3.0
TASKS = {
    "bench_choices": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "bench_words": """
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{word}}"
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "bench_texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
}


@dataclass(frozen=True, slots=True)
class HfSetting:
    """How the `hf` model runs; float32 softmax or its losses are rounded to bfloat16."""

    dtype: str
    batch: int

    def __str__(self) -> str:
        return f"lm-eval hf, sdpa, {self.dtype}, float32 softmax, batch {self.batch}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of words "w1" to "w50253", split at spaces."""
    vocabulary = {f"w{token}": token for token in range(1, VOCABULARY)} | {END_OF_TEXT: 0}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    words.save(str(path))
    return path


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory, effort: Effort) -> Path:
    """The three tasks with their documents."""
    _, questions, texts, tokens = FORMS[effort.name]
    folder = tmp_path_factory.mktemp("definitions")
    random = np.random.default_rng(2)

    def words(least: int, most: int) -> str:
        ids = random.integers(2, VOCABULARY, random.integers(least, most + 1))
        return " ".join(f"w{token}" for token in ids.tolist())

    documents: dict[str, list[dict[str, Any]]] = {
        "bench_choices": [
            {"question": words(32, 128), "choices": [words(4, 12) for _ in range(ANSWERS)],
             "label": int(random.integers(ANSWERS))}
            for _ in range(questions)
        ],
        "bench_words": [{"question": words(48, 112), "word": words(1, 2)}
                        for _ in range(questions)],
        "bench_texts": [{"text": words(tokens, tokens)} for _ in range(texts)],
    }  # fmt: skip
    for name, rows in documents.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        head = f"task: {name}\ndataset_path: json\ntest_split: test\n"
        data = f"dataset_kwargs: {{data_files: {{test: {file}}}}}\n"
        (folder / f"{name}.yaml").write_text(head + data + TASKS[name])
    return folder


class HfLoop:
    """The harness over checkpoints, in one setting."""

    def __init__(self, setting: HfSetting, tokenizer: Path, definitions: Path, first: Path) -> None:
        text = PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer), eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
        )
        self._model = from_pretrained(first, Setting(dtype=setting.dtype))
        self._hf = HFLM(
            pretrained=self._model,
            tokenizer=text,
            batch_size=setting.batch,
            max_length=CONTEXT,
            softmax_dtype="float32",
            device="cpu",
        )
        with quiet_harness():
            self._manager = TaskManager(include_path=str(definitions), include_defaults=False)
            self._tasks = list(self._manager.load(list(TASKS))["tasks"].values())

    def __call__(self, checkpoints: list[Path]) -> list[dict[str, Any]]:
        """The harness's results for each checkpoint."""
        return [self._results(checkpoint) for checkpoint in checkpoints]

    def _results(self, checkpoint: Path) -> dict[str, Any]:
        load_into(self._model, checkpoint)
        with quiet_harness():
            found: dict[str, Any] = lm_eval.simple_evaluate(
                model=self._hf,
                tasks=self._tasks,
                task_manager=self._manager,  # else all definitions are read again each time
                num_fewshot=0,
                bootstrap_iters=1000,
                log_samples=False,
            )["results"]
        return found


def best_setting(
    comparison: Comparison, make: Callable[[HfSetting], HfLoop], checkpoint: Path
) -> HfSetting:
    """The fastest data type, then batch size while larger ones help."""
    tried: dict[HfSetting, float] = {}

    def seconds(setting: HfSetting) -> float:
        loop = make(setting)
        started = time.perf_counter()
        loop([checkpoint])
        tried[setting] = time.perf_counter() - started
        comparison.calibrated("evaluate, 70m", str(setting), {"s_per_checkpoint": tried[setting]})
        return tried[setting]

    kinds = [dtype for dtype in multiplied_dtypes() if dtype != "split-bf16"]
    best = min((HfSetting(dtype, 8) for dtype in kinds), key=seconds)
    for batch in (16, 4, 32) if comparison.effort.name != "quick" else ():
        larger = replace(best, batch=batch)
        if seconds(larger) < tried[best]:
            best = larger
    return best


def test_evaluate(
    benchmark: Any,
    comparison: Comparison,
    effort: Effort,
    random_series: RandomSeries,
    tokenizer: Path,
    definitions: Path,
    tmp_path: Path,
) -> None:
    """The same tasks, documents and checkpoints, from files to results."""
    count, questions, texts, tokens = FORMS[effort.name]
    series = random_series("70m", count)
    checkpoints = [series / f"step{step}" for step in range(count)]
    setting = best_setting(
        comparison, lambda one: HfLoop(one, tokenizer, definitions, checkpoints[0]), checkpoints[0]
    )
    hf = HfLoop(setting, tokenizer, definitions, checkpoints[0])
    runs = itertools.count()

    def ours(dtype: str) -> pythia_fast.EvaluationResult:
        return pythia_fast.evaluate(
            series,
            range(count),
            list(TASKS),
            include_path=definitions,
            tokenizer=tokenizer,
            dtype=dtype,
            out=tmp_path / f"run{next(runs)}",
            progress=False,
        )

    expected = hf(checkpoints)
    form = f"{count} checkpoints, {questions} questions and words, {texts} texts of {tokens} tokens"
    cases = []
    for dtype in timed_dtypes():
        found = ours(dtype).results
        for step, theirs in enumerate(expected):
            _compare(found[step]["results"], theirs, exact=dtype == setting.dtype == "float32")
        cases.append(
            Ours(
                f"evaluate, 70m, {form}, {dtype}",
                lambda dtype=dtype: ours(dtype),
                target={str(setting): TARGET},
            )
        )
    comparison.run_all(benchmark, cases, {str(setting): lambda: hf(checkpoints)}, cache="warm")


def _compare(ours: dict[str, Any], theirs: dict[str, Any], *, exact: bool) -> None:
    """The same perplexity; in one data type also the same answers."""
    for task in TASKS:
        for key, value in theirs[task].items():
            if not isinstance(value, float) or "stderr" in key:
                continue
            if exact or key.startswith("word_perplexity"):
                np.testing.assert_allclose(ours[task][key], value, rtol=1e-4 if exact else 5e-2)
