"""A model of the suite and its tokenizer, from a Hub on this machine."""

import json
import os
import subprocess
import sys

import pytest

import pythia_fast
from pythia_fast.testing import HubServer, branches, tiny_suite

CALL = """
import json, sys, pythia_fast
for _ in range(2):
    result = pythia_fast.evaluate(
        "pythia-14m", [0, 1, 512], "local_last_word", limit=2, include_path=sys.argv[1],
        progress=False,
    )
    print(json.dumps(result.table.to_pylist()))
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three checkpoints of the true shape of 14m, of which 1 has the weights of 0."""
    folder = tmp_path_factory.mktemp("hub") / "14m"
    architecture = pythia_fast.spec("14m").architecture
    return tiny_suite(
        folder,
        steps=(0, 1, 512),
        copies={1: 0},
        architecture=architecture,
        layout="safetensors",
    )


def call(hub, home, definitions):
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CALL, str(definitions)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_model_and_tokenizer_come_from_the_hub(series, definitions, tmp_path):
    with HubServer({pythia_fast.spec("14m").repo: branches(series)}, redirect=True) as hub:
        rows, again = call(hub, tmp_path / "home", definitions)
    assert again == rows
    assert [row["step"] for row in rows] == [0, 0, 1, 1, 512, 512]
    assert [row["duplicate_of"] for row in rows] == [None, None, 0, 0, None, None]
    assert {row["model"] for row in rows} == {"14m"}
    assert all(len(row["commit"]) == 40 for row in rows)
    local = pythia_fast.evaluate(
        series, [512], "local_last_word", limit=2, include_path=definitions, progress=False
    )
    for row, expected in zip(rows[4:], local.table.to_pylist(), strict=True):
        for key in ("task", "metric", "value", "stderr", "n"):
            assert row[key] == expected[key]
