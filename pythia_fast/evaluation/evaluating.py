"""The evaluation of many checkpoints on the harness's tasks, resumable at any point."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer

from pythia_fast.cache import cache_folder, expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.bootstrap import ITERATIONS
from pythia_fast.evaluation.checkpoints import Checkpoints
from pythia_fast.evaluation.harness import Harness
from pythia_fast.evaluation.quiet import quiet_harness
from pythia_fast.evaluation.results import EvaluationResult
from pythia_fast.evaluation.tasks import LoadedTasks, Tasks, load_tasks
from pythia_fast.extras import require
from pythia_fast.model import resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.progress import Bar
from pythia_fast.quantities import parse_bytes
from pythia_fast.runs.asked import check_batch_tokens
from pythia_fast.runs.asking import fresh_folder
from pythia_fast.runs.folder.parts import EVALUATION
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.plan import fingerprint
from pythia_fast.runs.progress import Progress
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import load_tokenizer


def evaluate(
    model: str | Path,
    steps: Steps = "all",
    tasks: Tasks = (),
    *,
    num_fewshot: int | None = 0,
    limit: float | None = None,
    include_path: str | Path | Sequence[str | Path] | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    batch_tokens: int | Literal["auto"] = "auto",
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    log_samples: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> EvaluationResult:
    """Evaluate many checkpoints with lm-evaluation-harness (extra: `eval`).

        result = pythia_fast.evaluate("410m", "log", tasks=["lambada_openai", "piqa"])
        result.to_pandas()

    The tasks' requests are built, encoded and packed once. One model stays resident, and the
    checkpoints' weights are streamed through it. Log-likelihoods and greedy flags are those of the
    harness's own `hf` model, and its own code rates the answers. Each step's results are kept as
    they come, in the harness's format; the same call goes on where an earlier one stopped.

    The tasks' data sets are read by the package `datasets`, which keeps them in its own cache
    (HF_DATASETS_CACHE, by default ~/.cache/huggingface/datasets), also those made of local files.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`, or
            `global_stepN/` by GPT-NeoX.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        tasks: names of the harness, in a list or with commas, patterns such as "blimp_*", or
            "suite", the suite's eleven benchmarks; configurations (a dict with "task") and the
            harness's task objects are taken too.
        num_fewshot: how many solved examples stand before each question; None leaves it to the
            tasks. A task that sets it to 0 itself has none, as in the harness.
        limit: how many documents of each task, or below 1 which share of them; for trying out.
        include_path: one or more folders with task definitions of your own (YAML).
        out: the folder for the results. By default one in the user's cache that belongs to these
            arguments.
        resume: go on with what is in the folder; False wants a new one.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: as in `sweep`. It is part of the specification: where machines share `out`, name it.
        batch_tokens: how many tokens go through the model at once, padding included.
        cache_dir: where downloads and the default folder go.
        disk_budget: the most that downloaded checkpoints may take on the disk.
        tokenizer: a tokenizer.json; by default the model's own, of the last of the steps.
        log_samples: keep every request with its answer too.
        on_error: "raise" stops at the first step that fails; "skip" keeps the failure and goes on.
        progress: show progress on standard error.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError: an argument makes no sense, the harness is not installed, a task is not known
            (the nearest are named) or cannot be built, before any work.
        HubError: a task's data, or the Hub's checkpoints, cannot be had.
        MissingTokensError: there is no tokenizer.
        RunMismatchError: `out` holds results of another specification or of other weights.
        SweepError: steps are missing, or one failed; what was finished is kept.
        SweepInterruptedError: Ctrl-C; what was finished is kept.
    """
    _check(num_fewshot, limit, on_error)
    check_batch_tokens(batch_tokens)
    require("lm_eval")
    target = resolve_device(device)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    chosen = parse_steps(steps, series.steps, series=series.name)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    text = load_tokenizer(series.tokenizer_file(chosen[-1]) if tokenizer is None else tokenizer)
    answers = Answers(text, series.spec.architecture.max_positions, batch_tokens=batch_tokens)
    with Bar("load tasks", "documents", on=progress) as bar:
        with quiet_harness():
            loaded = load_tasks(
                tasks,
                num_fewshot=num_fewshot,
                limit=limit,
                include_path=include_path,
                bar=bar,
            )
        answers.encoder.bar = bar
        harness = Harness(loaded, answers, log_samples=log_samples)
        answers.encoder.bar = None
        specification = _specification(
            series, loaded, text, precision.name, log_samples=log_samples
        )
    path = expanded(out).absolute() if out else _default_folder(series, specification, cache_dir)
    if not resume:
        path = fresh_folder(path, given=out is not None)
    folder = RunFolder(path, specification)
    folder.ask(chosen)
    tokens = harness.tokens * len(chosen)
    with Progress(checkpoints=len(chosen), tokens=tokens, shown=progress) as shown:
        shown.say(f"{series.name}: {', '.join(loaded.tasks)} in {precision.name} on {target}")
        checkpoints = Checkpoints(
            *(series, chosen, folder, harness, answers, shown),
            budget_bytes=None if disk_budget is None else parse_bytes(disk_budget),
            on_error=on_error,
        )
        answers.advance = checkpoints.advance
        checkpoints.run(target, precision)
    return EvaluationResult(path, steps=chosen)


def _specification(
    series: CheckpointSeries,
    loaded: LoadedTasks,
    tokenizer: Tokenizer,
    dtype: str,
    *,
    log_samples: bool,
) -> dict[str, Any]:
    """All that determines the results, as plain JSON; the steps do not."""
    return {
        "kind": EVALUATION,
        "model": series.spec.name,
        "architecture": dataclasses.asdict(series.spec.architecture),
        **loaded.identity(),
        "limit": loaded.limit,
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "dtype": dtype,
        "harness_version": version("lm_eval"),
        "bootstrap_iterations": ITERATIONS,
        "log_samples": log_samples,
    }


def _default_folder(
    series: CheckpointSeries, specification: dict[str, Any], cache_dir: str | Path | None
) -> Path:
    digest = fingerprint({"specification": specification, "series": series.source})[:16]
    return cache_folder(cache_dir) / "runs" / f"{series.name}-evaluation-{digest}"


def _check(num_fewshot: object, limit: object, on_error: object) -> None:
    if on_error not in ("raise", "skip"):
        raise ArgumentError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    whole = isinstance(num_fewshot, int) and not isinstance(num_fewshot, bool)
    if num_fewshot is not None and (not whole or num_fewshot < 0):  # type: ignore[operator]
        raise ArgumentError(f"num_fewshot is a number from 0 on, or None, not {num_fewshot!r}")
    if limit is None:
        return
    number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    if not number or not math.isfinite(limit) or limit <= 0:  # type: ignore[arg-type,operator]
        raise ArgumentError(f"limit is a positive number of documents, or None, not {limit!r}")
    if limit > 1 and limit != int(limit):  # type: ignore[operator,call-overload]
        raise ArgumentError(f"limit is a share below 1 or a whole number, not {limit!r}")
