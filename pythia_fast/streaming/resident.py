"""One resident model, and the weights of checkpoint after checkpoint flowing into it.

The next checkpoint is read into another arena while the model computes (`arenas`). What lies on the
Hub is fetched ahead of the reading, as far as the disk budget allows.
"""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from tokenizers import Tokenizer

from pythia_fast.model import Model, Precision, TokenizerSource, resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.progress import Bar
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.streaming.arenas import make_arenas
from pythia_fast.streaming.prefetching import Loaded, NotLoaded, Waiting, prefetch
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import load_tokenizer


def load(
    model: str | Path,
    step: int | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    deterministic: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    tokenizer: TokenizerSource | None = None,
    progress: bool = True,
) -> Model:
    """One checkpoint as a `Model`; `step=None` is the last of the series.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`, or
            `global_stepN/` by GPT-NeoX.
        step: the training step.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        deterministic: on a GPU, multiply by the kernels only, never by cuBLAS, so that a sequence's
            values are the same to the last bit whatever is computed with it. It changes nothing on
            a CPU, nor where torch computes, as `repr(model)` tells.
        cache_dir: where downloads go; beside huggingface_hub's own cache if None.
        disk_budget: the most that downloads may take on the disk, as "500GB" or in bytes; None is
            as much as there is room for.
        tokenizer: the path of a tokenizer.json, or a Tokenizer, for `model.tokenizer`; None is each
            step's own, looked for when it is first used.
        progress: show on standard error what is downloaded.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError: no such device or dtype, or `disk_budget` is less than one checkpoint takes.
        MissingTokensError: there is no tokenizer where one was said to be.
        MissingCheckpointError: the step's files are not all there.
        HubError, ChecksumError: they cannot be had, or are not what the Hub promises.
        FormatError, WeightsError: a file is not what it should be.
    """
    target, given, series, precision = _opened(
        model, device, dtype, cache_dir, disk_budget, tokenizer
    )
    (chosen,) = parse_steps("last" if step is None else step, series.steps, series=series.name)
    with Bar(f"load {series.name} at step {chosen}", "B", on=progress) as bar:
        stream_of_one = _stream(
            *(series, (chosen,), precision, target, given, deterministic),
            waiting=lambda _, ahead: bar(ahead.received_bytes),
        )
        with closing(stream_of_one):
            return next(stream_of_one)[1]


def stream(
    model: str | Path,
    steps: Steps = "all",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    deterministic: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    tokenizer: TokenizerSource | None = None,
) -> Generator[tuple[int, Model], None, None]:
    """Walk through the checkpoints of a series with one resident model.

        for step, model in pythia_fast.stream("410m", steps="log"):
            print(step, model.nll(ids).mean())

    The same `Model` comes every time, with the weights of the next step: what is to outlive the
    step must be copied. The next checkpoint is read while the loop's body runs, and those after it
    are downloaded, as far as `disk_budget` allows. Leaving the loop stops the downloads; what has
    come of them is kept.

    Args:
        model: a name of the suite ("12b", "160m-seed3", …) or a folder that holds `stepN/`, or
            `global_stepN/` by GPT-NeoX.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without.
        deterministic: on a GPU, multiply by the kernels only, never by cuBLAS, so that a sequence's
            values are the same to the last bit whatever is computed with it. It changes nothing on
            a CPU, nor where torch computes, as `repr(model)` tells.
        cache_dir: where downloads go; beside huggingface_hub's own cache if None.
        disk_budget: the most that downloads may take on the disk, as "500GB" or in bytes; None is
            as much as there is room for.
        tokenizer: the path of a tokenizer.json, or a Tokenizer, for `model.tokenizer`; None is each
            step's own, looked for when it is first used.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError: no such device or dtype, or `disk_budget` is less than one checkpoint takes.
        MissingTokensError: there is no tokenizer where one was said to be.
        MissingCheckpointError, HubError, ChecksumError, FormatError, WeightsError: a step cannot be
            had or loaded; what was yielded before stays good.
    """
    target, given, series, precision = _opened(
        model, device, dtype, cache_dir, disk_budget, tokenizer
    )
    return _stream(
        series,
        parse_steps(steps, series.steps, series=series.name),
        precision,
        target,
        given,
        deterministic,
    )


def _opened(
    model: str | Path,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
    cache_dir: str | Path | None,
    disk_budget: int | str | None,
    tokenizer: TokenizerSource | None,
) -> tuple[torch.device, Tokenizer | None, CheckpointSeries, Precision]:
    target = resolve_device(device)
    given = None if tokenizer is None else load_tokenizer(tokenizer)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    return target, given, series, resolve_precision(dtype, target, series.spec.architecture)


def _stream(
    series: CheckpointSeries,
    steps: Sequence[int],
    precision: Precision,
    device: torch.device,
    tokenizer: Tokenizer | None,
    deterministic: bool,
    *,
    waiting: Waiting | None = None,
) -> Generator[tuple[int, Model], None, None]:
    arenas = make_arenas(series.spec.architecture, len(steps), precision, device)
    resident = Model(
        arenas.resident,
        series.spec,
        arithmetic=precision.arithmetic,
        series=series,
        deterministic=deterministic,
    )
    if tokenizer is not None:
        resident.tokenizer = tokenizer
    coming = prefetch(
        *(series, deque(steps), arenas.loading),
        hashed=False,
        poured_into=arenas.poured_into,
        waiting=waiting,
    )
    with closing(coming) as loaded_steps:
        for loaded in loaded_steps:
            if isinstance(loaded, NotLoaded):
                loaded.error.add_note(f"while loading step {loaded.step} of {series.name}")
                raise loaded.error
            swap(resident, loaded)
            yield loaded.step, resident


def swap(resident: Model, loaded: Loaded) -> None:
    """Let the resident model compute with what was loaded. Nothing is copied."""
    resident.weights = loaded.weights
    resident.step = loaded.step
    resident.checkpoint = loaded.checkpoint
