"""Which files of a `global_stepN/` hold its weights, in either of GPT-NeoX's layouts."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pythia_fast.errors import MissingCheckpointError
from pythia_fast.series.local import file_names, refuse_unfinished
from pythia_fast.words import listed

_LAYER = re.compile(r"layer_(\d{2,5})-model_(\d{2,5})-model_states\.pt", re.ASCII)
_RANK = re.compile(r"mp_rank_(\d{2,5})_model_states\.pt", re.ASCII)
_NAMED_AT_MOST = 4
_RANKS_AT_MOST = 1024


@dataclass(frozen=True, slots=True)
class Shards:
    """The weights files of a step, of `ranks` model-parallel ranks.

    A file for each of `layers` and each rank, or with `layers` None one for each rank.
    """

    ranks: int
    layers: tuple[int, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """All files, layer by layer and rank by rank."""
        return tuple(self.name(rank, layer) for layer in self.layers or (0,) for rank in self._all)

    def name(self, rank: int, layer: int) -> str:
        """The file that has the rank's part of a layer."""
        if self.layers is None:
            return f"mp_rank_{rank:02}_model_states.pt"
        return f"layer_{layer:02}-model_{rank:02}-model_states.pt"

    def where(self, name: str) -> tuple[int | None, int]:
        """(layer, rank) of one of the names; the layer is None for a file with all of them."""
        if match := _LAYER.fullmatch(name):
            return int(match[1]), int(match[2])
        match = _RANK.fullmatch(name)
        assert match is not None
        return None, int(match[1])

    @property
    def _all(self) -> range:
        return range(self.ranks)


def find_shards(folder: Path) -> Shards:
    """The weights files in the folder of a step.

    MissingCheckpointError if there are none, if one is being written, or if a layer of a rank or a
    whole rank is not there. Files of the optimizer are passed over.
    """
    names = file_names(folder)
    refuse_unfinished(folder, names)
    cells = {(int(m[1]), int(m[2])) for name in names if (m := _LAYER.fullmatch(name))}
    # Beside the layers, files of that name hold the state of training but no weights, and there is
    # one for each rank of every stage of the pipeline.
    whole = {int(m[1]) for name in names if (m := _RANK.fullmatch(name))}
    ranks = max({rank for _, rank in cells} or whole, default=-1) + 1
    if not ranks:
        raise MissingCheckpointError(
            f"{folder} holds no weights of GPT-NeoX: neither layer_XX-model_YY-model_states.pt nor "
            "mp_rank_YY_model_states.pt"
        )
    if ranks > _RANKS_AT_MOST:
        raise MissingCheckpointError(
            f"{folder} names the model-parallel rank {ranks - 1}; {_RANKS_AT_MOST} are read at most"
        )
    layers = tuple(sorted({layer for layer, _ in cells}))
    shards = Shards(ranks, layers or None)
    _require(folder, shards, names)
    return shards


def _require(folder: Path, shards: Shards, names: Collection[str]) -> None:
    """Every rank of every layer is there."""
    wanted = shards.names
    missing = [name for name in wanted if name not in names]
    if missing:
        raise MissingCheckpointError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} files of its {shards.ranks} "
            f"model-parallel ranks: {listed(missing, _NAMED_AT_MOST)}"
        )


def final_norm_name(layers: int) -> re.Pattern[str]:
    """The files of nothing but the last LayerNorm, of a model of `layers`."""
    return re.compile(rf"layer_{layers + 3:02}-model_\d{{2,5}}-model_states\.pt", re.ASCII)
