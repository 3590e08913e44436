"""The example runs as its docstring says, and its numbers are the model's."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, decoders, models

import pythia_fast
from pythia_fast.testing import tiny_suite
from pythia_fast.testing.tokenizer import byte_tokenizer

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
    out = tmp_path / "lens.svg"
    arguments = [str(suite), "--steps", "all", "--text", TEXT, "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["logit_lens.py", *arguments])
    example.main()
    assert capsys.readouterr().out == f"wrote {out}\n"
    drawn = out.read_text()
    for words in ("after layer", "embedding", "the model", "at step 1,000", ">$<", "&lt;e4&gt;"):
        assert words in drawn


def test_its_last_layer_is_the_model(suite: Path, example: ModuleType) -> None:
    table = example.lens(str(suite), "all", TEXT).to_pandas()
    ids = list(TEXT.encode())
    assert len(table) == 4 * 3 * (len(ids) - 1)
    for step, model in pythia_fast.stream(suite):
        rows = table[(table.step == step) & (table.layer == 2)]
        np.testing.assert_allclose(rows.nll, model.nll([ids])[0].numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(rows.probability, np.exp(-rows.nll))
    assert list(rows.token) == ["·", "$", "x", "$", "·", "_", "\\n", "<e4>", "<b8>", "<96>"]
    assert list(rows.token_id) == ids[1:]
    assert list(rows.guess_id) == model.score([ids]).argmax[0].tolist()


def test_tokens_are_shown_by_what_they_are(example: ModuleType) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["\ufffd"])
    assert [example.shown(tokenizer, byte) for byte in (32, 9, 92, 0x7F, 0xE4, 256, 257, 258)] == [
        *("·", "\\t", "\\\\", "\\x7f", "<e4>", "<|endoftext|>", "\\ufffd", "[258]")
    ]
    of_bytes = [example.shown(tokenizer, byte) for byte in range(256)]
    assert len({*of_bytes}) == 256
    broken = Tokenizer(
        models.BPE({"\u00e4\u00b8": 0, "\u00e4\u00b8\u0138": 1, "\u0120\u00e4": 2}, [])
    )
    broken.decoder = decoders.ByteLevel()
    assert [example.shown(broken, token) for token in range(3)] == ["<e4><b8>", "\\u4e16", "·<e4>"]


def test_bold_are_the_first_guesses_that_are_right_and_none_leaves_its_cell(
    example: ModuleType,
) -> None:
    """Two tokens that are shown alike are two."""
    words = ["\\u4e16\\u754c", "·international", "M" * 20, "\\U0001f600", "<e4><b8>", "same"] * 2
    rows = [
        {"model": "m", "step": 0, "layer": layer, "token_id": x, "token": word, "nll": 1.0}
        | {"probability": 0.5, "guess_id": x + layer, "guess": word}
        for layer in (0, 1)
        for x, word in enumerate(words)
    ]
    made = example.figure(pa.Table.from_pylist(rows))
    made.draw_without_rendering()
    axes = made.axes[1]
    weights = {text.get_position(): text.get_weight() for text in axes.texts}
    expected = {(x, y): ("bold", "normal")[y] for x in range(12) for y in (0, 1)}
    assert weights == expected
    cell_width = axes.get_window_extent().width / len(words)
    for text in (*axes.texts, *axes.get_xticklabels()):
        assert text.get_window_extent().width < cell_width
        assert len(text.get_text()) > 1  # more than an ellipsis


def test_a_text_of_one_token_is_too_short(suite: Path, example: ModuleType) -> None:
    with pytest.raises(SystemExit, match="two tokens"):
        example.lens(str(suite), "0", "a")
