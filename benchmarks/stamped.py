"""A metric that also writes down when it was computed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

import pythia_fast


@dataclass(frozen=True)
class Stamped:
    """Perplexity that writes down when each batch began and ended, in seconds of the same clock."""

    stamps: str
    name: str = "stamped"
    of: pythia_fast.Perplexity = field(default_factory=pythia_fast.Perplexity)

    @property
    def settings(self) -> Mapping[str, str]:
        """The place of the stamps changes no result."""
        return {}

    def __call__(
        self, model: pythia_fast.Model, batch: pythia_fast.Batch
    ) -> Mapping[str, npt.NDArray[Any] | torch.Tensor]:
        """The columns of perplexity."""
        began = time.time()
        columns = self.of(model, batch)
        with Path(self.stamps).open(
            "a"
        ) as file:  # one write: those of several processes stay whole
            file.write(f"{began} {time.time()}\n")
        return columns
