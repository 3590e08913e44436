"""Checkpoints with random weights in the suite's true shapes, made once for all themes."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pythia_fast.series.write import CheckpointFormat
from pythia_fast.suite import spec
from pythia_fast.testing import make_series


class RandomSeries:
    """(size, checkpoints, format) -> a folder of random weights in a true shape, float16.

    safetensors is what transformers reads fastest. A folder may have more checkpoints than were
    asked for: 70m's are kept for the next theme, those of larger sizes until another is asked for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(
        self, size: str, checkpoints: int, format: CheckpointFormat = "safetensors"
    ) -> Path:
        """Two checkpoints at a time: one thread makes all random numbers of one."""
        folder = self._root / f"pythia-{size}-random-{format}"
        for other in self._root.iterdir():
            if other != folder and not other.name.startswith("pythia-70m-"):
                shutil.rmtree(other)
        missing = [n for n in range(checkpoints) if not (folder / f"step{n}").exists()]
        shape = spec(size).architecture
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda n: make_series(folder, shape, [n], formats=(format,)), missing))
        return folder
