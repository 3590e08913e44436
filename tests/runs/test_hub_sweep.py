"""The plain call, as a user makes it, against a Hub on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.quantities import sized
from pythia_fast.testing import HubServer, make_series
from pythia_fast.tokens import write_tokens
from pythia_fast.tokens.remote.pile import REPOSITORIES

CALL = """
import json, pythia_fast
result = pythia_fast.sweep("pythia-14m", steps=[0, 1000], sequences=2, progress=False)
print(json.dumps(result.table.to_pylist()))
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of the true shape of 14m."""
    folder = tmp_path_factory.mktemp("hub")
    return make_series(folder, pythia_fast.spec("14m").architecture, (0, 1000))


def call(hub: HubServer, home: Path) -> list[dict]:
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_model_and_data_come_from_the_hub(series: Path, tmp_path: Path) -> None:
    spec = pythia_fast.spec("14m")
    data = tmp_path / "data"
    data.mkdir()
    ids = np.random.default_rng(0).integers(0, 50_254, (4, 2049), dtype=np.uint16)
    write_tokens(data / "document", ids)
    branches = {f"step{step}": series / f"step{step}" for step in (0, 1000)}
    repositories = {
        spec.repo: branches,
        f"datasets/{REPOSITORIES[spec.corpus]}": {"main": data},
    }
    with HubServer(repositories, redirect=True) as hub:
        rows = call(hub, tmp_path / "home")
        downloads = hub.count("/resolve/")
        assert call(hub, tmp_path / "home") == rows  # nothing is computed or downloaded again
        assert hub.count("/resolve/") == downloads
    assert [row["step"] for row in rows] == [0, 1000]
    assert all(len(row["commit"]) == 40 for row in rows)
    assert {row["model"] for row in rows} == {"14m"}
    for row in rows:
        model = GPTNeoXForCausalLM.from_pretrained(
            series / f"step{row['step']}", dtype=torch.float32
        )
        window = torch.from_numpy(ids[:2].astype(np.int64))
        with torch.inference_mode():
            logits = model(window[:, :-1]).logits.double()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        assert row["loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_the_tokens_that_come_are_told_before_the_work_begins(
    small_sweep: Callable[..., pythia_fast.SweepResult],
    tiny_ids: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    write_tokens(tmp_path / "data/document", tiny_ids)
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    with HubServer({"datasets/me/data": {"main": tmp_path / "data"}}, redirect=True) as hub:
        files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        asked = {"tokens": "hub:me/data", "cache_dir": tmp_path / "cache"}
        small_sweep(**asked, progress=True)
        told = capsys.readouterr()
        small_sweep(**asked, progress=True, out=tmp_path / "another")
        again = capsys.readouterr()
        small_sweep(**asked, out=tmp_path / "quiet", progress=False)
    lines = told.err.splitlines()
    size = (tmp_path / "data/document.bin").stat().st_size
    assert lines[0].startswith(f"fetch tokens: {sized(size)}/")
    assert not any(line.startswith("fetch tokens: ") for line in again.err.splitlines())
    assert (told.out, again.out, *capsys.readouterr()) == ("", "", "", "")
