"""The example runs as its docstring says, and its numbers are the model's."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pythia_fast
from pythia_fast.testing import tiny_suite

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/logit_lens.py"
TEXT = "a $x$ _\n世"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_suite(tmp_path_factory.mktemp("lens") / "suite", steps=(0, 1, 2, 1000))


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("logit_lens_example", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_it_writes_a_figure(
    suite: Path,
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "figures/lens.svg"
    arguments = [str(suite), "--steps", "all", "--text", TEXT, "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["logit_lens.py", *arguments])
    example.main()
    assert capsys.readouterr().out == f"wrote {out}\n"
    drawn = out.read_text()
    for words in ("after layer", "embedding", "the model", "at step 1,000", ">$<", "\\ufffd"):
        assert words in drawn


def test_its_last_layer_is_the_model(suite: Path, example: ModuleType) -> None:
    table = example.lens(str(suite), "all", TEXT).to_pandas()
    ids = list(TEXT.encode())
    assert len(table) == 4 * 3 * (len(ids) - 1)
    for step, model in pythia_fast.stream(suite):
        rows = table[(table.step == step) & (table.layer == 2)]
        np.testing.assert_allclose(rows.nll, model.nll([ids])[0].numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(rows.probability, np.exp(-rows.nll))
    assert list(rows.token[:6]) == ["·", "$", "x", "$", "·", "_"]


def test_a_text_of_one_token_is_too_short(suite: Path, example: ModuleType) -> None:
    with pytest.raises(SystemExit, match="two tokens"):
        example.lens(str(suite), "0", "a")
