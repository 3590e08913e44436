"""Several models of the Hub in one sweep: one store, one budget, one corpus."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pythia_fast
from pythia_fast.errors import MissingCheckpointError, SweepError
from pythia_fast.runs import asking
from pythia_fast.series import LocalSeries, open_series
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import SUITE, Architecture, parse_steps
from pythia_fast.testing import HubServer, make_series

STEPS = (0, 2, 4)
MODELS = ("70m", "410m-deduped")
Sweep = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny: Architecture) -> dict[str, Path]:
    """The checkpoints of two models; the second lacks step 4. Not to be written to."""
    folder = tmp_path_factory.mktemp("models")
    steps = {"70m": STEPS, "410m-deduped": STEPS[:2]}
    return {
        name: make_series(folder / name, tiny, of_it, seed=seed)
        for seed, (name, of_it) in enumerate(steps.items())
    }


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[HubServer]:
    repositories = {
        f"EleutherAI/pythia-{name}": {path.name: path for path in folder.iterdir()}
        for name, folder in folders.items()
    }
    with HubServer(repositories, redirect=True) as hub:
        yield hub


@pytest.fixture
def hub_sweep(
    hub: HubServer,
    tiny: Architecture,
    small_sweep: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sweep:
    """Sweep both models, as if they were tiny, from one store."""

    def opened(
        model: str | Path, *, disk_budget: int | None = None, **_: object
    ) -> HubSeries | LocalSeries:
        if isinstance(model, Path):
            return LocalSeries(model)
        spec = replace(pythia_fast.spec(model), architecture=tiny, steps=STEPS)
        return HubSeries(spec, tmp_path / "hub", endpoint=hub.url, disk_budget=disk_budget)

    monkeypatch.setattr("pythia_fast.runs.sweeping.open_series", opened)

    def run(**changes: Any) -> Any:
        return small_sweep(**({"model": list(MODELS), "steps": [0, 2]} | changes))

    return run


def weights_bytes(folder: Path) -> int:
    files = [file for file in folder.iterdir() if file.suffix in (".bin", ".safetensors")]
    return sum(file.stat().st_size for file in files)


def downloads(hub: HubServer) -> list[str]:
    weights = (".bin", ".safetensors")
    return sorted({r.path for r in hub.requests if r.method == "GET" and r.path.endswith(weights)})


def test_a_budget_of_one_checkpoint_is_enough_for_all_models(
    hub_sweep: Sweep, small_sweep: Sweep, hub: HubServer, folders: dict[str, Path], tmp_path: Path
) -> None:
    most = max(weights_bytes(path) for folder in folders.values() for path in folder.iterdir())
    results = hub_sweep(disk_budget=most + 8192 * 4)
    for name, folder in folders.items():
        local = small_sweep(model=folder, steps=[0, 2], out=tmp_path / "local" / name)
        for column in ("model", "step", "value", "weights_sha256"):
            assert results[name].table[column].to_pylist() == local.table[column].to_pylist()
    assert len(downloads(hub)) == 4
    before = len(downloads(hub))
    assert hub_sweep().table.equals(results.table)
    assert len(downloads(hub)) == before


def test_all_models_are_looked_up_before_the_first_download(
    hub_sweep: Sweep, hub: HubServer, tmp_path: Path
) -> None:
    with pytest.raises(SweepError, match=r"^410m-deduped: 1 of 3 steps cannot be had") as caught:
        hub_sweep(steps="all")
    assert isinstance(caught.value.__cause__, MissingCheckpointError)
    assert downloads(hub) == []
    results = hub_sweep(steps="all", on_error="skip")
    assert [each.step for each in results.failures["410m-deduped"]] == [4]
    assert len(results.table) == 5


class Opened:
    """What stands for a data set that would be fetched."""

    def __init__(self, source: str, *, cache_dir: object) -> None:
        self.source = source


@pytest.mark.parametrize("tokens", [None, "data/train"])
def test_data_is_opened_once_for_all_that_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: str | None
) -> None:
    monkeypatch.setattr(asking, "TokenDataset", Opened)
    found = asking.questions(
        [open_series(name, cache_dir=tmp_path) for name in SUITE],
        "log",
        tokens=tokens,
        sequences=16,
        metrics="perplexity",
        deterministic=False,
        batch_tokens="auto",
        disk_budget="1GB",
        cache_dir=tmp_path,
    )
    assert [each.series.name for each in found] == list(SUITE)
    corpora = {"hub:pile-standard", "hub:pile-deduped"} if tokens is None else {tokens}
    assert {each.dataset.source for each in found} == corpora
    assert len({id(each.dataset) for each in found}) == len(corpora)
    if tokens is None:
        for each in found:
            deduped = each.series.name.endswith("-deduped")
            assert each.dataset.source.endswith("deduped") == deduped
    for each in found:
        assert each.steps == parse_steps("log", pythia_fast.checkpoints(each.series.name))
        assert each.budget_bytes == 10**9
