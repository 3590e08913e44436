"""A metric of a file that the command line names, at workers that do not have the file."""

import json
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest
from ray_nodes import IDS, Nodes

from pythia_fast.cli import main
from pythia_fast.tokens import write_tokens

MINE = """
def doubled(lengths):
    return lengths * 2

class Length:
    name = "length"

    def __call__(self, model, batch):
        if model.step == 4:
            raise ValueError("not this one")
        return {"length": doubled(batch.lengths_B)}
"""


@pytest.mark.timeout(300)
def test_workers_have_it(
    nodes: Nodes, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far").mkdir()
    (tmp_path / "far/mine.py").write_text(MINE)
    write_tokens(tmp_path / "ids", np.asarray(IDS))
    done = click.testing.CliRunner().invoke(
        main,
        [
            *("sweep", str(series), "--steps", "4,8", "--tokens", str(tmp_path / "ids")),
            *("--metrics", "far/mine.py:Length", "--out", str(tmp_path / "run"), "--json"),
            *("--engine", "ray", "--workers", "1", "--worker-cpus", "1", "--on-error", "skip"),
        ],
    )
    assert done.exit_code == 4, done.output
    found = json.loads(done.stdout)
    assert [(row["step"], row["value"]) for row in found["rows"]] == [(8, 2 * IDS.shape[1])]
    (failure,) = found["failures"]
    assert failure["message"].startswith("not this one (mine.py:10)")
