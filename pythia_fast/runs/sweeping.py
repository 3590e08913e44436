"""The sweep: every metric over every sequence at every checkpoint, resumable at any point."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, overload

import torch

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError, SweepInterruptedError
from pythia_fast.metrics import Metric
from pythia_fast.model import known_precision, resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.progress import Bar
from pythia_fast.runs.asked import Asked
from pythia_fast.runs.asking import check_out, questions, settled
from pythia_fast.runs.cluster import Cluster
from pythia_fast.runs.cluster.placing import check_device
from pythia_fast.runs.engines import compute_here, compute_there
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.runs.results.several import SweepResults
from pythia_fast.runs.steps.share import Share, share_of
from pythia_fast.runs.workers import Workers, resolve_workers
from pythia_fast.series import names_of, open_series
from pythia_fast.suite import Steps
from pythia_fast.tokens import TokenDataset, TokenSource

Several = list[str] | list[Path] | list[str | Path] | tuple[str | Path, ...]
"""Several models: names and folders in order; "all" among them are those of the suite."""


@overload  # "all" is a str too, which the next one takes: the first that fits counts
def sweep(  # type: ignore[overload-overlap]
    model: Literal["all"] | Several,
    steps: Steps = ...,
    *,
    tokens: TokenDataset | TokenSource | None = ...,
    sequences: int | slice | Literal["seen", "unseen"] = ...,
    metrics: str | Metric | Sequence[str | Metric] = ...,
    out: str | Path | None = ...,
    resume: bool = ...,
    device: str | torch.device | None = ...,
    dtype: str | torch.dtype = ...,
    batch_tokens: int | Literal["auto"] = ...,
    deterministic: bool = ...,
    cache_dir: str | Path | None = ...,
    disk_budget: int | str | None = ...,
    on_error: Literal["raise", "skip"] = ...,
    engine: Literal["local", "ray"] = ...,
    workers: int | Literal["auto"] | Workers | None = ...,
    worker: str | None = ...,
    progress: bool = ...,
) -> SweepResults: ...


@overload
def sweep(
    model: str | Path,
    steps: Steps = ...,
    *,
    tokens: TokenDataset | TokenSource | None = ...,
    sequences: int | slice | Literal["seen", "unseen"] = ...,
    metrics: str | Metric | Sequence[str | Metric] = ...,
    out: str | Path | None = ...,
    resume: bool = ...,
    device: str | torch.device | None = ...,
    dtype: str | torch.dtype = ...,
    batch_tokens: int | Literal["auto"] = ...,
    deterministic: bool = ...,
    cache_dir: str | Path | None = ...,
    disk_budget: int | str | None = ...,
    on_error: Literal["raise", "skip"] = ...,
    engine: Literal["local", "ray"] = ...,
    workers: int | Literal["auto"] | Workers | None = ...,
    worker: str | None = ...,
    progress: bool = ...,
) -> SweepResult: ...


def sweep(
    model: str | Path | Several,
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
    engine: Literal["local", "ray"] = "local",
    workers: int | Literal["auto"] | Workers | None = None,
    worker: str | None = None,
    progress: bool = True,
) -> SweepResult | SweepResults:
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
            that holds `stepN/`, or `global_stepN/` by GPT-NeoX. Several in a list, each of a name
            of its own, or "all" for the sixteen of the suite ("70m" to "12b" and "-deduped"), which
            gives `SweepResults`.
        steps: numbers, a range, "all", "log", "last" or "1000:143001:1000".
        tokens: what to compute on: a `TokenDataset`, or what one is made of: the prefix of an
            `.idx`/`.bin` pair, the folder of its shards, a `.npy` file, an integer array [N, L] or
            a data set of the Hub ("hub:owner/name").
            None: the model's own corpus in the suite's published order, of which what `sequences`
            chooses is fetched from the Hub before any work, and kept (other seeds than the suite's
            own saw the same corpus in another order).
        sequences: how many of its sequences from the first on, or a slice of them, or those that
            a step has "seen" or not ("unseen"), for models that saw their corpus in the suite's own
            order. What an intervened model saw in an altered text is neither.
        metrics: "perplexity", "memorization", "memorization-score", or objects that follow the
            `Metric` protocol.
        out: the run folder. By default one in the user's cache that belongs to these arguments.
            For several models the folder of their run folders, which are called like the models.
        resume: go on with what is in the run folder; False wants a new one.
        device: where to compute; the first GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16", "float16", "split-bf16" (float32 weights as sums of two
            bfloat16, on a CPU with AMX) or "auto": float16 on a GPU, on a CPU "split-bf16" with
            AMX and "float32" without. The results and the progress say which it was. It is part of
            a run's specification: where machines of both kinds share `out`, name it.
        batch_tokens: how many tokens go through the model at once, padding included.
        deterministic: a sequence's values are the same to the last bit whatever is computed with
            it: on a GPU the Triton kernels never leave a product to cuBLAS, and where torch
            computes, every sequence goes through by itself, which is slower for short ones.
        cache_dir: where downloads and the default run folder go.
        disk_budget: the most that downloaded checkpoints may take on the disk, as "500GB" or in
            bytes: the next ones wait until used ones are removed. None: as much as there is room.
        on_error: "raise" stops at the first step that fails, and before the start if steps are
            missing; "skip" keeps the failure and goes on.
        engine: "local" computes in this process; "ray" on the workers of a Ray cluster (extra:
            `ray`): the one that this process is connected to, that of RAY_ADDRESS, one that runs on
            this machine, or a new one here. All machines must see a `model` and `tokens` that are
            files; `out` need not be seen by them, and `cache_dir` is each machine's own.
        workers: of "ray": how many, "auto" (one for each GPU, or each machine's CPUs), or a
            `Workers` that says more.
        worker: do a part of the steps: "3/16" the third of sixteen, "slurm" that of this task of a
            Slurm array. Each process cuts the steps alike, steps with the same weights stay
            together, and all share `out`, where `pythia_fast.status` tells how far they are. The
            result is that of the part.
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
        WorkerError: no Ray cluster answers, or its workers die before they can begin.
    """
    if on_error not in ("raise", "skip"):
        raise ArgumentError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    _check_engine(engine, workers)
    share = _share(worker, engine, resume)
    out = None if out is None else expanded(out).absolute()  # a metric may change the folder
    check_out(out)
    names, several = names_of(model)
    target = None if engine == "ray" else resolve_device(device)
    with Bar("fetch tokens", "B", on=progress) as bar:
        asking = questions(
            [open_series(name, cache_dir=cache_dir, disk_budget=disk_budget) for name in names],
            steps,
            tokens=tokens,
            sequences=sequences,
            metrics=metrics,
            deterministic=deterministic,
            batch_tokens=batch_tokens,
            disk_budget=disk_budget,
            cache_dir=cache_dir,
            fetching=bar,
        )
        if target is None:
            given = None if device is None else str(device)
            check_device(given)
        for each in asking:
            each.check()  # what is wrong with the sequences is told before anybody is asked
    architectures = [each.series.spec.architecture for each in asking]
    settle = partial(settled, asking, out=out, several=several, resume=resume, cache_dir=cache_dir)
    if target is None:
        with _kept(()), Cluster(resolve_workers(workers), given) as cluster:
            steps_in_all = sum(len(each.steps) for each in asking)
            cluster.begin(str(dtype), architectures, most=steps_in_all)
            known = known_precision(dtype)
            asked = settle([known] * len(asking) if known else cluster.first().precisions)
            with _kept(asked), _progress(asked, progress) as shown:
                compute_there(asked, shown, cluster, on_error)
            own = [one.plan.steps for one in asked]
    else:
        asked = settle([resolve_precision(dtype, target, each).name for each in architectures])
        with _kept(asked), _progress(asked, progress) as shown:
            own = compute_here(asked, shown, target, on_error, share)
    with _kept(asked):
        results = [
            SweepResult(one.folder.path, steps=steps_of_it, metrics=one.plan.metrics)
            for one, steps_of_it in zip(asked, own, strict=True)
        ]
    return SweepResults(results, path=out) if several else results[0]


def _check_engine(engine: object, workers: object) -> None:
    if engine not in ("local", "ray"):
        raise ArgumentError(f"engine is 'local' or 'ray', not {engine!r}")
    if engine == "local" and workers is not None:
        raise ArgumentError("workers are for engine='ray'; the local engine is one process")


def _share(worker: str | None, engine: str, resume: bool) -> Share | None:
    share = share_of(worker)
    if share is not None and engine != "local":
        raise ArgumentError("worker is for engine='local'; a cluster deals out the steps itself")
    if share is not None and not resume:
        raise ArgumentError("those who share a sweep go on in one folder: leave out resume=False")
    return share


def _progress(asked: Sequence[Asked], shown: bool) -> Progress:
    return Progress(
        checkpoints=sum(len(one.plan.steps) for one in asked),
        tokens=sum(one.plan.tokens for one in asked),
        shown=shown,
    )


@contextmanager
def _kept(asked: Sequence[Asked]) -> Iterator[None]:
    """An interrupt says where what is finished is kept."""
    try:
        yield
    except SweepInterruptedError:
        raise
    except KeyboardInterrupt:
        places = ", ".join(str(one.folder.path) for one in asked) or "the run folder"
        raise SweepInterruptedError(
            f"interrupted: what is finished is kept in {places}; the same call goes on from there"
        ) from None
