"""A folder of GPT-NeoX's own checkpoints as a series: `global_stepN/`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pythia_fast.core import File
from pythia_fast.digest import Digests
from pythia_fast.errors import MissingCheckpointError, PythiaFastError, WeightsError
from pythia_fast.series.alike import outline, parts_digest
from pythia_fast.series.checkpoint import Checkpoint, CheckpointFile, open_checkpoint
from pythia_fast.series.gpt_neox.config import find_yml, read_yml
from pythia_fast.series.gpt_neox.files import Shards, find_shards
from pythia_fast.series.gpt_neox.merging import assemble, merge
from pythia_fast.series.gpt_neox.reading import (
    Opened,
    Pieces,
    count_vocab_rows,
    read_pieces,
    require_all,
)
from pythia_fast.series.gpt_neox.rules import Merge
from pythia_fast.series.layout import CONFIG, WeightFiles, read_architecture
from pythia_fast.series.local import NEOX_PREFIX, LocalSeries
from pythia_fast.series.revision import Revision
from pythia_fast.series.tensors import TensorRange
from pythia_fast.suite.architecture import Architecture

_MERGED = "merged.safetensors"


class GptNeoxSeries(LocalSeries):
    """The checkpoints of a training run of GPT-NeoX, of any number of model-parallel ranks.

    The model's shape is taken from a config.json in a step's folder or beside the steps, or else
    from GPT-NeoX's own yml files: in the step's `configs/`, in its folder, in `configs/` beside the
    steps, or beside them. The weights of one rank are read where they lie; those of several are
    merged when a step is opened, into a temporary file (in memory up to 64 MiB), one after the
    other.
    """

    _prefix: ClassVar[str] = NEOX_PREFIX

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of one step, merged.

        The errors of `LocalSeries.open`: MissingCheckpointError names the files of layers and ranks
        that are not there, WeightsError what does not fit the configuration. WriteError if there is
        no room for the merged weights.
        """
        folder = self._step_folder(step)
        shards, opened, pieces, rules, architecture = self._pieces(step, folder)
        if shards.ranks > 1:
            parts = {name: merge(rules[name], pieces[name]) for name in architecture.shapes()}
            merged = assemble(parts, folder)
            opened = [(CheckpointFile(_MERGED, folder, merged.size, None), merged)]
            pieces = {}
        digests = None if shards.ranks > 1 else self._digests  # of what is merged each time anew
        return _checkpoint(opened, pieces, step, folder, architecture, digests)

    def hashed(self, revision: Revision) -> Revision:
        """As of `LocalSeries`, of several ranks by their parts: nothing is merged.

        What else lies in their files, such as the state of training, does not count.
        """
        step = revision.step
        shards, _, pieces, _, architecture = self._pieces(step, self._step_folder(step))
        if shards.ranks == 1:
            return super().hashed(revision)
        return replace(revision, parts_sha256=parts_digest(_in_order(pieces, architecture)))

    def _look_into(self, step: int) -> str:
        """Without merging, which reads all weights."""
        shards, opened, pieces, _, architecture = self._pieces(step, self._step_folder(step))
        files = [description for description, _ in opened] if shards.ranks == 1 else []
        return outline(files, _in_order(pieces, architecture))

    def _pieces(
        self, step: int, folder: Path
    ) -> tuple[Shards, Opened, Pieces, Mapping[str, Merge], Architecture]:
        """What the headers of a step's files tell, checked."""
        shards = find_shards(folder)
        architecture = self._architecture(step, folder)
        require_all(shards, architecture, folder)
        opened = _open(folder, shards.names)
        pieces, rules = read_pieces(shards, opened, architecture, folder)
        return shards, opened, pieces, rules, architecture

    def _files(self, folder: Path) -> tuple[str, ...]:
        shards = find_shards(folder)
        require_all(shards, self.spec.architecture, folder)
        return shards.names

    def _first_architecture(self, steps: Sequence[int]) -> Architecture:
        """Of the first step that says it: one of which files are missing does not bar the rest."""
        first: PythiaFastError | None = None
        for step in steps:
            try:
                architecture = self._read_architecture(step)
            except PythiaFastError as error:
                first = first or error
                continue
            if architecture is not None:
                return architecture
        raise first or self._no_config(steps[0])

    def _architecture(self, step: int, folder: Path) -> Architecture:
        architecture = self._read_architecture(step)
        if architecture is None:
            raise self._no_config(step)
        if architecture != self.spec.architecture:
            raise WeightsError(
                f"{folder} is of another model than the rest of the series: "
                f"{architecture.difference(self.spec.architecture)}"
            )
        return architecture

    def _read_architecture(self, step: int) -> Architecture | None:
        """The model of a step, by a config.json or the first yml files found."""
        if (path := self._config(step)) is not None:
            return read_architecture(path)
        own = self.folder / f"{NEOX_PREFIX}{step}"
        files = find_yml(own / "configs", own, self.folder / "configs", self.folder)
        if not files:
            return None
        shards = find_shards(own)
        architecture = read_yml(files, count_vocab_rows(shards, own))
        require_all(shards, architecture, own)  # without all ranks the rows are too few
        return architecture

    def _no_config(self, step: int) -> MissingCheckpointError:
        return MissingCheckpointError(
            f"{self.folder} has neither a {CONFIG} nor a yml of GPT-NeoX, be it in "
            f"{NEOX_PREFIX}{step}, in its configs/ or beside it; without one the model's shape is "
            "unknown"
        )


def _in_order(pieces: Pieces, architecture: Architecture) -> list[TensorRange]:
    """The parts of all weights, rank by rank."""
    return [part for name in architecture.shapes() for part in pieces[name]]


def _open(folder: Path, names: Sequence[str]) -> Opened:
    files = [(name, File(folder / name)) for name in names]
    return [(CheckpointFile(name, folder / name, file.size, None), file) for name, file in files]


def _checkpoint(
    opened: Opened,
    pieces: Pieces,
    step: int,
    folder: Path,
    architecture: Architecture,
    digests: Digests | None,
) -> Checkpoint:
    """With `pieces`, each of one part, these are its tensors; else the one file's own."""
    in_place: dict[str, list[TensorRange]] = {part.file.path: [] for [part] in pieces.values()}
    for [part] in pieces.values():
        in_place[part.file.path].append(part)
    return open_checkpoint(
        WeightFiles(tuple(description.name for description, _ in opened)),
        opened,
        step=step,
        source=str(folder),
        commit=None,
        architecture=architecture,
        read=(lambda _, file: in_place.get(file.path, [])) if pieces else None,
        digests=digests,
    )
