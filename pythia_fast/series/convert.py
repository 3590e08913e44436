"""Checkpoints from any source written anew in the Hub's layout, step by step.

    OUT/stepN/  model.safetensors (or shards and an index), config.json
                tokenizer.json      if the source has one
                conversion.json     what it was made from, and the sha256 of every file

A step is written under another name, flushed to the disk and renamed when all of it is there, so
that a folder `stepN` is always whole, and the same call goes on after a kill.
"""

import contextlib
import hashlib
import operator
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pythia_fast.cache import expanded
from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import (
    ArgumentError,
    MissingTokensError,
    OnError,
    ReadError,
    RunMismatchError,
    WriteError,
)
from pythia_fast.progress import Bar
from pythia_fast.publish import (
    TakenError,
    make_folder,
    published,
    published_folder,
    require_space,
)
from pythia_fast.quantities import parse_bytes
from pythia_fast.series.arriving import Arriving
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.conversion import Conversion, Outcome
from pythia_fast.series.layout import CONFIG, INDEX_LIMIT_BYTES, TOKENIZER
from pythia_fast.series.local import LocalSeries
from pythia_fast.series.parts import part_of, write_parts
from pythia_fast.series.sources import Ahead, CheckpointSeries, open_series
from pythia_fast.series.strict_json import parse_object
from pythia_fast.series.tensors import TensorRange
from pythia_fast.series.write import (
    CheckpointFormat,
    check_format,
    cut,
    index_name,
    index_of,
    write_json,
    write_torch_zip,
)
from pythia_fast.suite.steps import Steps, parse_steps

RECORD = "conversion.json"
TORCH_SHARD_BYTES = 5_000_000_000
"""torch.save has a whole file's tensors in memory, and so cuts it unless a size is given."""
_TORCH_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def convert(
    model: str | Path,
    out: str | Path,
    steps: Steps = "all",
    *,
    format: CheckpointFormat = "safetensors",
    max_shard_size: int | str | None = None,
    cache_dir: str | Path | None = None,
    disk_budget: int | str | None = None,
    on_error: OnError = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write checkpoints as `out/stepN/`, ready for this package and for transformers.

    `model` is a model of the suite or a folder: `stepN/`, or GPT-NeoX's own `global_stepN/`, whose
    ranks are merged. Every weight keeps its bits and dtype; buffers that older files carry are left
    out, a tokenizer.json goes along. `format` is "safetensors" or "torch"; above `max_shard_size`
    ("5GB", or bytes) the weights are cut into shards. "torch" holds one file's tensors in memory,
    and cuts at 5 GB if no size is given; "safetensors" needs a few megabytes. `progress` is told
    steps done and steps in all; a Bar also of what is downloaded. `cache_dir` and `disk_budget` are
    those of `load`.

    A step that cannot be had, read or trusted is ConversionError, which says what is kept and how
    to go on; with `on_error="skip"` it is left out and named in `failures`.

    Steps that an earlier call has finished are passed over if they are of the same weights, and in
    the same format; RunMismatchError says so if they are not, before anything is written. The other
    errors are those of `open_series` and WriteError. WorkInterruptedError for Ctrl-C; what was
    finished stays.
    """
    shard_bytes = None if max_shard_size is None else parse_bytes(max_shard_size)
    check_format(format, shard_bytes)
    series = open_series(model, cache_dir=cache_dir, disk_budget=disk_budget)
    wanted = parse_steps(steps, series.steps, series=series.name)
    target = _Target(expanded(out), format, shard_bytes)
    outcome = Outcome(target.out, wanted, on_error, progress)
    if isinstance(series, LocalSeries):
        _require_elsewhere(target.out, series)
    try:
        _convert(series, target, outcome)
    except KeyboardInterrupt as interrupt:
        raise outcome.interrupted() from interrupt
    outcome.tell()
    return outcome.result()


def _convert(series: CheckpointSeries, target: "_Target", outcome: Outcome) -> None:
    todo = [step for step in outcome.wanted if not target.has(series, step)]
    outcome.there = len(outcome.wanted) - len(todo)
    revisions = series.survey(todo)
    outcome.missing(
        {step: each.error for step, each in revisions.items() if each.error is not None}
    )
    todo = [step for step in todo if revisions[step].error is None]
    with series.ahead(todo) as ahead, _told(ahead, outcome.progress):
        for step in todo:
            outcome.tell()
            try:
                with contextlib.closing(series.open(step)) as checkpoint:
                    nbytes = target.write(series, checkpoint)
            except (RunMismatchError, WriteError):  # the fault of `out`, and so of every step
                raise
            except Exception as error:
                outcome.fail(step, error)
            else:
                outcome.done(step, nbytes)


def _told(
    ahead: Ahead, progress: Callable[[int, int], None] | None
) -> contextlib.AbstractContextManager[None]:
    if isinstance(progress, Bar):
        return progress.telling(Arriving(ahead))
    return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class _Target:
    """The folder of the copies, and how they are written."""

    out: Path
    format: CheckpointFormat
    shard_bytes: int | None

    def has(self, series: CheckpointSeries, step: int) -> bool:
        """Whether the step is there, made from what looks the same now.

        RunMismatchError if something else has its name.
        """
        record = self._record(step)
        return record is not None and record.get("identity") == series.identity(step)

    def write(self, series: CheckpointSeries, checkpoint: Checkpoint) -> int:
        """Write the step unless it is there already, and return how many bytes that took.

        RunMismatchError if it is there of other weights, also if somebody wrote it meanwhile.
        """
        while not self._is_there(checkpoint):
            with contextlib.suppress(TakenError):  # it may be the same
                return self._publish(series, checkpoint)
        return 0

    def _is_there(self, checkpoint: Checkpoint) -> bool:
        record = self._record(checkpoint.step)
        if record is not None and record.get("weights_sha256") != checkpoint.weights_sha256:
            raise RunMismatchError(
                f"{self._folder(checkpoint.step)} was made from other weights than "
                f"{checkpoint.source} has now; remove it to have it made anew, or choose another "
                "folder"
            )
        return record is not None

    def _publish(self, series: CheckpointSeries, checkpoint: Checkpoint) -> int:
        """Write the step. TakenError if somebody else was faster."""
        step = checkpoint.step
        make_folder(self.out)
        require_space(self.out, sum(tensor.nbytes for tensor in checkpoint.tensors.values()))
        with published_folder(self._folder(step)) as folder:
            files = self._write_files(folder, checkpoint) | _copy_tokenizer(series, step, folder)
            record = {
                "source": checkpoint.source,
                "commit": checkpoint.commit,
                "identity": series.identity(step),
                "weights_sha256": checkpoint.weights_sha256,
                **self._settings(),
                "files": files,
                "pythia_fast": version("pythia-fast"),
            }
            write_json(folder / RECORD, record)
        return sum(file["size"] for file in files.values())

    def _folder(self, step: int) -> Path:
        return self.out / f"step{step}"

    def _settings(self) -> dict[str, object]:
        return {"format": self.format, "max_shard_bytes": self.shard_bytes}

    def _record(self, step: int) -> dict[str, Any] | None:
        """What the step's folder says of itself; None if there is no such folder, or an empty one.

        RunMismatchError if it is not the work of `convert`, was made in another way, or lacks one
        of its files.
        """
        folder = self._folder(step)
        try:
            if stat.S_ISLNK(folder.lstat().st_mode):
                raise RunMismatchError(f"{folder} is a symbolic link, which is not followed")
            if not any(folder.iterdir()):
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReadError.of(folder, error) from error
        way_out = "remove it to have it made anew, or choose another folder"
        try:
            file = File(folder / RECORD)
            record = parse_object(file.read(0, min(file.size, INDEX_LIMIT_BYTES)))
            files = {str(name): operator.index(f["size"]) for name, f in record["files"].items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise RunMismatchError(
                f"{folder} is not the work of convert ({RECORD}: {error}); {way_out}"
            ) from error
        for name, nbytes in files.items():
            if not _is_file(folder, name, nbytes):
                raise RunMismatchError(f"{folder} lacks {name[:200]!r}, or part of it; {way_out}")
        if any(record.get(key) != value for key, value in self._settings().items()):
            raise RunMismatchError(f"{folder} was made in another format or shard size; {way_out}")
        return record

    def _write_files(self, folder: Path, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
        """Name -> size and sha256 of every file written."""
        sizes = {name: tensor.nbytes for name, tensor in checkpoint.tensors.items()}
        limit = self.shard_bytes
        if limit is None and self.format == "torch":
            limit = TORCH_SHARD_BYTES
        shards = cut(sizes, self.format, limit)
        write = _write_torch if self.format == "torch" else _write_safetensors
        digests = {shard: write(folder / shard, checkpoint, shards[shard]) for shard in shards}
        texts: dict[str, Mapping[str, object]] = {CONFIG: _config(checkpoint)}
        if len(shards) > 1:
            texts[index_name(self.format)] = index_of(shards, sum(sizes.values()))
        for name, content in texts.items():
            write_json(folder / name, content)
            digests[name] = sha256(File(folder / name))
        return {
            name: {"size": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in digests.items()
        }


def _copy_tokenizer(series: CheckpointSeries, step: int, folder: Path) -> dict[str, dict[str, Any]]:
    """The step's tokenizer.json as it is, if it has one: without it weights give no text."""
    try:
        source = series.tokenizer_file(step)
    except MissingTokensError:
        return {}
    file = File(source)
    content = file.read(0, file.size)
    with published(folder / TOKENIZER) as copy:
        copy.write(content)
    digest = hashlib.sha256(content).hexdigest()
    return {TOKENIZER: {"size": len(content), "sha256": digest}}


def _require_elsewhere(out: Path, series: LocalSeries) -> None:
    """ArgumentError if the copy would be among what it is made of, or inside a step of it."""
    real = out.resolve()
    steps = {step_folder.resolve() for step_folder in series.step_folders()}
    if real == series.folder or not steps.isdisjoint((real, *real.parents)):
        raise ArgumentError(
            f"{out} is the source itself or a step of it; give another folder for the copy"
        )


def _write_safetensors(path: Path, checkpoint: Checkpoint, names: Sequence[str]) -> str:
    """Write some of the weights, piece by piece, and return the file's sha256."""
    digest = hashlib.sha256()
    with published(path) as file:
        parts = {name: part_of(checkpoint.tensors[name]) for name in names}
        write_parts(file, parts, seen=digest.update)
    return digest.hexdigest()


def _write_torch(path: Path, checkpoint: Checkpoint, names: Sequence[str]) -> str:
    """As `_write_safetensors`, by torch.save, with these weights in memory."""
    import torch

    def read(tensor: TensorRange) -> torch.Tensor:
        raw = bytearray(tensor.file.read(tensor.offset, tensor.nbytes))
        dtype: torch.dtype = getattr(torch, _TORCH_NAMES[tensor.dtype])
        return torch.frombuffer(raw, dtype=dtype).reshape(tensor.shape)

    write_torch_zip(path, {name: read(checkpoint.tensors[name]) for name in names})
    return sha256(File(path))


def _config(checkpoint: Checkpoint) -> dict[str, object]:
    """The config.json, with the dtype that holds every weight: transformers loads into it."""
    dtypes = {tensor.dtype for tensor in checkpoint.tensors.values()}
    widest = dtypes.pop() if len(dtypes) == 1 else "F64" if "F64" in dtypes else "F32"
    return checkpoint.architecture.to_config() | {"torch_dtype": _TORCH_NAMES[widest]}


def _is_file(folder: Path, name: str, nbytes: int) -> bool:
    """Whether there is a file, no link, of that bare name and size."""
    if Path(name).name != name:
        return False
    try:
        status = (folder / name).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == nbytes
