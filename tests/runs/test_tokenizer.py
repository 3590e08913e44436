"""Where a model's tokenizer comes from: folders of every layout, and the Hub's revisions."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import pythia_fast
from pythia_fast.errors import (
    ArgumentError,
    MissingCheckpointError,
    MissingTokensError,
    ReadError,
    UnknownStepError,
)
from pythia_fast.metrics import Batch
from pythia_fast.model import Model
from pythia_fast.series import local_series
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import ModelSpec, spec
from pythia_fast.testing import HubServer, branches, tiny, tiny_suite
from pythia_fast.testing.tokenizer import byte_tokenizer

REPO = "EleutherAI/pythia-14m"
BYTES = byte_tokenizer().to_str()


def other() -> Tokenizer:
    """One that can be told from the byte tokenizer."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["Hello"])
    return tokenizer


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tiny_suite(tmp_path / "suite", steps=(0, 1, 2))


@pytest.mark.parametrize("layout", ["mixed", "gpt-neox layers", "gpt-neox ranks"])
def test_of_a_folder(tmp_path: Path, layout: str) -> None:
    suite = tiny_suite(tmp_path / "suite", steps=(0, 1), layout=layout)
    for _, model in pythia_fast.stream(suite):
        assert model.tokenizer.to_str() == BYTES
        assert model.complete("Hello", 2).startswith("Hello")


@pytest.mark.parametrize("layout", ["mixed", "gpt-neox layers"])
def test_of_the_step_before_that_beside_it(tmp_path: Path, layout: str) -> None:
    suite = tiny_suite(tmp_path / "suite", steps=(0, 1), layout=layout)
    prefix = "step" if layout == "mixed" else "global_step"
    other().save(str(suite / f"{prefix}1/tokenizer.json"))
    found = {step: model.tokenizer for step, model in pythia_fast.stream(suite)}
    assert found[0].to_str() == BYTES
    assert found[1].to_str() == other().to_str()


def test_equal_ones_are_read_once(suite: Path) -> None:
    assert len({id(model.tokenizer) for _, model in pythia_fast.stream(suite)}) == 1


def test_a_folder_without_says_what_to_do(suite: Path) -> None:
    for path in suite.rglob("tokenizer.json"):
        path.unlink()
    model = pythia_fast.load(suite, 1)
    with pytest.raises(MissingTokensError) as caught:
        model.complete("Hello")
    for words in (str(suite / "step1/tokenizer.json"), str(suite / "tokenizer.json"), "tokenizer="):
        assert words in str(caught.value)
    byte_tokenizer().save(str(suite / "tokenizer.json"))
    assert model.complete("Hello", 1).startswith("Hello")  # it was not too late
    with pytest.raises(UnknownStepError):
        local_series(suite).tokenizer_file(7)


def test_one_that_is_none_is_told(suite: Path) -> None:
    (suite / "step1/tokenizer.json").write_text("[]")
    with pytest.raises(ArgumentError, match=r"step1/tokenizer\.json holds no tokenizer"):
        _ = pythia_fast.load(suite, 1).tokenizer


def test_a_folder_that_may_not_be_looked_into(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = local_series(suite)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ReadError, match=r"step1/tokenizer\.json"):
        series.tokenizer_file(1)


def test_one_for_all_steps_may_be_given(suite: Path, tmp_path: Path) -> None:
    other().save(str(tmp_path / "t.json"))
    for source in (tmp_path / "t.json", str(tmp_path / "t.json"), other()):
        for _, model in pythia_fast.stream(suite, tokenizer=source):
            assert model.tokenizer.to_str() == other().to_str()
    with pytest.raises(MissingTokensError, match=r"t2\.json"):
        pythia_fast.load(suite, tokenizer=tmp_path / "t2.json")
    with pytest.raises(MissingTokensError):
        pythia_fast.stream(suite, tokenizer=tmp_path / "t2.json")  # before the first step
    with pytest.raises(ArgumentError, match="tokenizer"):
        pythia_fast.load(suite, tokenizer=7)


class Begins:
    """A metric that asks the model's own tokenizer."""

    name = "begins"

    def __call__(self, model: Model, batch: Batch) -> dict[str, torch.Tensor]:
        id_of_a = model.tokenizer.token_to_id("a")
        return {"begins": (batch.ids_BT[:, 0] == id_of_a).float()}


def test_metrics_of_a_sweep_have_it(suite: Path, tmp_path: Path) -> None:
    ids = np.full((4, 8), ord("a"))
    ids[1, 0] = ord("b")
    result = pythia_fast.sweep(
        suite, tokens=ids, metrics=[Begins()], out=tmp_path / "run", progress=False
    )
    assert result.table["value"].to_pylist() == [0.75] * 3


def test_a_conversion_takes_it_along(tmp_path: Path) -> None:
    source = tiny_suite(tmp_path / "suite", steps=(0, 1), layout="gpt-neox ranks")
    out = tmp_path / "out"
    pythia_fast.convert(source, out)
    for step, model in pythia_fast.stream(out):
        assert model.tokenizer.to_str() == BYTES
        loaded = AutoTokenizer.from_pretrained(out / f"step{step}")
        assert loaded("Hello, 世").input_ids == list("Hello, 世".encode())
    assert pythia_fast.convert(source, out).written == ()
    (source / "tokenizer.json").unlink()
    bare = tmp_path / "bare"
    pythia_fast.convert(source, bare)
    assert not list(bare.rglob("tokenizer.json"))
    (out / "step0/tokenizer.json").unlink()
    with pytest.raises(pythia_fast.PythiaFastError, match=r"lacks 'tokenizer\.json'"):
        pythia_fast.convert(source, out)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """14m's name and a tiny model's files: another tokenizer at step 1, none at step 2."""
    suite = tiny_suite(tmp_path / "14m", steps=(0, 1, 2, 4))
    other().save(str(suite / "step1/tokenizer.json"))
    (suite / "step2/tokenizer.json").unlink()
    shutil.rmtree(suite / "step4")
    with HubServer({REPO: branches(suite)}) as server:
        yield server


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, hub: HubServer, tmp_path: Path) -> ModelSpec:
    """14m as if it were as small as the files of the test."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return replace(spec("14m"), architecture=tiny(vocab_rows=260))


def test_of_each_revision_of_the_hub(hub: HubServer, small: ModelSpec, tmp_path: Path) -> None:
    series = HubSeries(small, cache_dir=tmp_path / "cache", endpoint=hub.url)
    model = Model(pythia_fast.model.Weights(small.architecture), small, step=0, series=series)
    assert model.tokenizer.to_str() == BYTES
    model.step = 1
    assert model.tokenizer.to_str() == other().to_str()
    model.step = 2
    with pytest.raises(
        MissingTokensError, match=rf"{REPO} at step 2 has no tokenizer.json.*tokenizer="
    ):
        _ = model.tokenizer
    model.step = 4
    with pytest.raises(MissingCheckpointError):
        _ = model.tokenizer
    model.step = 0
    asked = len(hub.requests)
    assert model.tokenizer.to_str() == BYTES
    assert len(hub.requests) == asked  # it is on this machine now
