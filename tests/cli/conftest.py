"""What the command line is tried on: a tiny suite with a tokenizer, and tokens for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click.testing
import numpy as np
import pytest

from pythia_fast.cli import main
from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.tokens import write_tokens

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run() -> Run:
    """The command in this process; its arguments are turned into text."""

    def invoke(*arguments: object, exit_code: int = 0) -> click.testing.Result:
        runner = click.testing.CliRunner()
        result = runner.invoke(main, [str(each) for each in arguments], prog_name="pythia-fast")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


@pytest.fixture(scope="session")
def suite(tiny_series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny series (160 rows: the ids of ASCII) with a byte tokenizer. Not to be written to."""
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    shutil.copytree(tiny_series, folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def tokens(tiny_ids: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 sequences of 80 tokens as a file pair."""
    prefix = tmp_path_factory.mktemp("tokens") / "train"
    write_tokens(prefix, tiny_ids)
    return prefix


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows of text as bytes, of different lengths, with an end of text in the last."""
    prefix = tmp_path_factory.mktemp("texts") / "texts"
    rows = [list(f"row {row}: {'x' * row}".encode()) for row in range(6)]
    write_tokens(prefix, [*rows[:5], [*rows[5], 256]])
    return prefix


ORIGIN = {
    "run": "x",
    "model": "70m",
    "commit": None,
    "identity": "x",
    "weights_sha256": "0" * 64,
    "weights_nonfinite": 0,
    "duplicate_of": None,
    "dtype": "float32",
    "device": "cpu",
    "version": "1",
}


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """The folder of an evaluation of two tasks at three of four steps."""
    folder = tmp_path / "eval"
    (folder / "results").mkdir(parents=True)
    specification = {"kind": "evaluation", "model": "70m", "tasks": {"sciq": {}, "piqa": {}}}
    run = {"format": 1, "hash": "x", "specification": specification}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "asked").mkdir()
    (folder / "asked/a.json").write_text('{"steps": [0, 1000, 2000, 3000]}')
    for step in (0, 1000, 3000):
        numbers = {"acc,none": 0.25 + step / 1e4, "acc_stderr,none": 0.01}
        record = {
            "results": {"sciq": numbers, "piqa": numbers | {"acc_norm,none": 0.5}},
            "n-shot": {"sciq": 0, "piqa": 0},
            "pythia_fast": ORIGIN | {"step": step},
        }
        (folder / f"results/step={step}.json").write_text(json.dumps(record))
    return folder
