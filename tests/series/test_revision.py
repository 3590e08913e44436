"""What is known of a step's files before they are fetched: how much of them comes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pythia_fast.errors import HubError
from pythia_fast.hub import download
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.masks import find_masks, probe
from pythia_fast.series import Revision
from pythia_fast.series.hub import HubSeries
from pythia_fast.series.revision import made_bytes
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import HubServer, make_series, random_state_dict

REPO = "EleutherAI/pythia-14m"


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("name", ["14m", "70m", "1b", "12b"])
def test_masks_are_where_a_file_is_larger_than_its_weights(name: str, itemsize: int) -> None:
    architecture = spec(name).architecture
    weights, masks = architecture.parameters * itemsize, architecture.layers * 2048**2
    assert made_bytes(weights + masks + 100_000, architecture) == masks
    assert made_bytes(weights + 100_000, architecture) == 0
    assert made_bytes(weights + masks, replace(architecture, max_positions=128)) == 0


def test_of_what_is_to_come_masks_are_their_share() -> None:
    files = (HubFile("pytorch_model.bin", 1000, "a"),)
    assert Revision(0, files=files, made_bytes=400).download_bytes == 600
    half = Revision(0, files=files, made_bytes=400, here_bytes=500)
    assert (half.coming_bytes, half.download_bytes) == (500, 300)
    assert Revision(0, files=files, made_bytes=400, here_bytes=1000).download_bytes == 0
    assert Revision(0).download_bytes == 0


def test_the_estimate_is_what_is_found(tiny: Architecture, tmp_path: Path) -> None:
    """By the directory of a file of this layout."""
    architecture = replace(tiny, max_positions=512)
    state = random_state_dict(architecture, seed=0)
    for layer in range(architecture.layers):
        mask = torch.ones(512, 512, dtype=torch.bool).tril()
        state[f"gpt_neox.layers.{layer}.attention.bias"] = mask[None, None]
    file = tmp_path / "pytorch_model.bin"
    torch.save({name: each.clone() for name, each in state.items()}, file)
    data = file.read_bytes()
    probed = probe(file.name, len(data))
    assert probed is not None
    found = find_masks(file.name, len(data), data[slice(*probed)])
    assert made_bytes(len(data), architecture) == sum(mask.side**2 for mask in found) > 0


def test_what_lies_in_another_cache_takes_no_room(tiny: Architecture, tmp_path: Path) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 2), formats=("safetensors",))
    with HubServer({REPO: {f"step{step}": folder / f"step{step}" for step in (0, 2)}}) as hub:
        known = replace(spec("14m"), architecture=tiny, steps=(0, 2))
        series = HubSeries(known, tmp_path / "hub", endpoint=hub.url)
        digest = series.survey([0])[0].files[0].sha256
        blobs = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
        blobs.mkdir(parents=True)
        shutil.copy(folder / "step0/model.safetensors", blobs / str(digest))
        found = series.survey([0, 2])
    assert found[0].elsewhere_bytes == found[0].here_bytes == found[0].nbytes
    assert found[2].elsewhere_bytes == found[2].here_bytes == 0


def test_a_look_ahead_tells_why_it_failed(
    tiny: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    folder = make_series(tmp_path / "s", tiny, (0, 2), formats=("safetensors",))
    with HubServer({REPO: {f"step{step}": folder / f"step{step}" for step in (0, 2)}}) as hub:
        known = replace(spec("14m"), architecture=tiny, steps=(0, 2))
        series = HubSeries(known, tmp_path / "hub", endpoint=hub.url)
        with series.ahead([0]) as ahead:
            series.open(0).close()
            assert ahead.failed is None
        hub.fail("model.safetensors", status=403, times=1000)
        with series.ahead([2]) as ahead:
            with pytest.raises(HubError) as caught:
                series.open(2)
            assert ahead.failed is caught.value
