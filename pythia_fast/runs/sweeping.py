"""The sweep: every metric over every sequence at every checkpoint, resumable at any point."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from pythia_fast.cache import cache_folder, expanded
from pythia_fast.errors import ArgumentError, RunMismatchError, SweepInterruptedError
from pythia_fast.metrics import Metric, resolve
from pythia_fast.model import resolve_precision
from pythia_fast.quantities import parse_bytes
from pythia_fast.runs.asked import Asked, check_batch_tokens
from pythia_fast.runs.folder import RunFolder
from pythia_fast.runs.local import LocalEngine
from pythia_fast.runs.plan import Plan, fingerprint, sequences_argument
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results import SweepResult
from pythia_fast.runs.streaming import resolve_device
from pythia_fast.series import CheckpointSeries, open_series
from pythia_fast.suite import Steps, parse_steps
from pythia_fast.tokens import TokenDataset, TokenSource


def sweep(
    model: str | Path,
    steps: Steps = "all",
    *,
    tokens: TokenDataset | TokenSource | None = None,
    sequences: int | slice | Literal["seen", "unseen"] = 512,
    metrics: str | Metric | Sequence[str | Metric] = ("perplexity",),
    out: str | Path | None = None,
    resume: bool = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    batch_tokens: int | Literal["auto"] = "auto",
    deterministic: bool = False,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> SweepResult:
    """Ask the same questions of many checkpoints.

        result = pythia_fast.sweep("suites/tiny", tokens="data/train", metrics=["perplexity"])
        result.to_pandas()

    One model stays resident, the checkpoints' weights are streamed through it. What is computed is
    kept as it comes, one file for each step, metric and shard of the data, in the run folder; the
    same call goes on where an earlier one stopped.

    Before the first byte of weights is downloaded, all steps are looked up: each is pinned to the
    commit that its branch is at, what is missing and what is known to be odd is told, and of steps
    with the same weights only one is downloaded and computed (`duplicate_of` in the results), but
    for "seen" and "unseen", where every step looks at rows of its own. Then downloading, reading
    and computing go on side by side; `SweepResult.times` tells where the time went.

    Args:
        model: a name of the suite ("12b", "160m-seed3", "EleutherAI/pythia-70m", …) or a folder
            that holds `stepN/`.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        tokens: what to compute on: a `TokenDataset`, or what one is made of: the prefix of an
            `.idx`/`.bin` pair, an integer array [N, L] or a data set of the Hub ("hub:owner/name").
            None: the model's own corpus in the suite's published order, of which what `sequences`
            chooses is fetched from the Hub before any work, and kept (other seeds than the suite's
            own saw the same corpus in another order).
        sequences: how many of its sequences from the first on, or a slice of them, or those that
            a step has "seen" or not ("unseen"). What an intervened model saw in an altered text
            is neither.
        metrics: "perplexity", "memorization", "memorization-score", or objects that follow the
            `Metric` protocol.
        out: the run folder. By default one in the user's cache that belongs to these arguments.
        resume: go on with what is in the run folder; False wants a new one.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without. The results and the progress say which it was. It is part of
            a run's specification: where machines of both kinds share `out`, name it.
        batch_tokens: how many tokens go through the model at once, padding included.
        deterministic: compute every sequence by itself, so that its values are the same to the
            last bit whatever is computed with it; slower for short sequences.
        cache_dir: where downloads and the default run folder go.
        disk_budget: the most that downloaded checkpoints may take on the disk, as "500GB" or in
            bytes: the next ones wait until used ones are removed. None: as much as there is room.
        on_error: "raise" stops at the first step that fails, and before the start if steps are
            missing; "skip" keeps the failure and goes on.
        progress: show progress on standard error.

    Raises:
        UnknownModelError, UnknownStepError: no such model or step; the nearest are named.
        ArgumentError, TokenRangeError: an argument or a token makes no sense, before any work.
        ArgumentError: `disk_budget` is less than the largest checkpoint takes.
        HubError, MissingTokensError: the Hub or the tokens cannot be had, before any work.
        RunMismatchError: `out` holds results of another specification or of other weights, or the
            weights of a step have changed on the Hub since; the message says how to accept them.
        SweepError: steps are missing, or one failed; the cause is chained and what was finished is
            kept.
        SweepInterruptedError: Ctrl-C; what was finished is kept.
    """
    if on_error not in ("raise", "skip"):
        raise ArgumentError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    target = resolve_device(device)
    chosen = sequences_argument(sequences)
    check_batch_tokens(batch_tokens)
    budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    precision = resolve_precision(dtype, target, series.spec.architecture)
    plan = Plan(
        spec=series.spec,
        steps=parse_steps(steps, series.steps),
        metrics=resolve(metrics),
        dataset=_dataset(tokens, series, cache_dir),
        sequences=chosen,
        dtype=precision.name,
        deterministic=deterministic,
    )
    path = expanded(out) if out else default_folder(series, plan, cache_dir)
    if not resume:
        path = fresh_folder(path, given=out is not None)
    sources = {"model": series.source, "tokens": plan.dataset.address}
    folder = RunFolder(path, plan.specification, sources)
    folder.ask(plan.steps)
    try:
        with Progress(checkpoints=len(plan.steps), tokens=plan.tokens, shown=progress) as shown:
            shown.say(f"{series.name}: computing in {precision.name} on {target}")
            asked = Asked(series, plan, folder, batch_tokens, budget_bytes)
            LocalEngine(asked, shown).run(target, precision, on_error)
        return SweepResult(path, steps=plan.steps, metrics=plan.metrics)
    except SweepInterruptedError:
        raise
    except KeyboardInterrupt:
        raise SweepInterruptedError(
            f"interrupted: what is finished is kept in {path}; the same call goes on from there"
        ) from None


def default_folder(
    series: CheckpointSeries, plan: Plan, cache_dir: str | Path | None = None
) -> Path:
    """Where a run without `out` is kept: a folder that belongs to the call's arguments."""
    digest = fingerprint({"specification": plan.specification, "series": series.source})[:16]
    return cache_folder(cache_dir) / "runs" / f"{series.name}-{digest}"


def _dataset(
    tokens: TokenDataset | TokenSource | None,
    series: CheckpointSeries,
    cache_dir: str | Path | None,
) -> TokenDataset:
    if isinstance(tokens, TokenDataset):
        return tokens
    if tokens is not None:
        return TokenDataset(tokens, cache_dir=cache_dir)
    if series.spec.corpus is None:
        raise ArgumentError(
            f"{series.name} is a local folder, so its training data is not known: give `tokens`, "
            "the prefix of an .idx/.bin pair or an integer array [N, L]"
        )
    return TokenDataset(f"hub:{series.spec.corpus}", cache_dir=cache_dir)


def fresh_folder(path: Path, *, given: bool) -> Path:
    """A folder without a run: beside `path`, or `path` itself if the user gave it.

    RunMismatchError if the user's holds one.
    """
    if not given:
        return path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")
    if (path / "run.json").exists():
        raise RunMismatchError(f"{path} holds a run already and resume is False: give a new `out`")
    return path
