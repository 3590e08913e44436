"""Where the texts come from: what is given, what the run folder says, or nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.report.texts import texts_of
from pythia_fast.testing import tiny_suite
from pythia_fast.testing.tokenizer import byte_tokenizer
from pythia_fast.tokens import TokenDataset, write_tokens

Make = Callable[..., Any]


@pytest.fixture
def pair(tmp_path: Path, texts: TokenDataset) -> Path:
    write_tokens(tmp_path / "train", texts[:])
    return tmp_path / "train"


def test_tokens_that_are_given_must_be_those_of_the_run(
    make_run: Make, texts: TokenDataset
) -> None:
    run = make_run()
    assert texts_of([run], texts, None)[0].dataset is texts
    other = TokenDataset(np.zeros((12, 64), np.int64))
    with pytest.raises(ArgumentError, match="fingerprints differ"):
        texts_of([run], other, None)[0]
    with pytest.raises(ArgumentError, match="fingerprints differ"):
        texts_of([run], TokenDataset(np.zeros((2, 64), np.int64)), None)


def test_tokens_and_tokenizer_are_found_where_the_run_had_them(
    make_run: Make, pair: Path, tmp_path: Path
) -> None:
    run = make_run()
    suite = tiny_suite(tmp_path / "suite", steps=(0, 64))
    address = TokenDataset(pair).address
    run.record["sources"] = {"model": str(suite), "tokens": address}
    found = texts_of([run], None, None)[0]
    assert found.notes == ()
    assert found.dataset is not None
    assert "".join(found.pieces.of(found.dataset[4].tolist())).startswith("04 The quick")


def test_texts_that_cannot_be_had_are_a_note(make_run: Make, pair: Path) -> None:
    run = make_run()
    assert "does not say where its tokens are" in texts_of([run], None, None)[0].notes[0]
    run.record["sources"] = {"model": None, "tokens": str(pair) + ".bin"}
    write_tokens(pair, np.ones((12, 64), np.int64))
    assert "has changed since" in texts_of([run], None, None)[0].notes[0]
    pair.with_suffix(".bin").unlink()
    assert "cannot be read" in texts_of([run], None, None)[0].notes[0]
    del run.record["sources"]  # as of a version before this
    assert texts_of([run], None, None)[0].dataset is None


def test_without_a_tokenizer_tokens_are_numbers_and_it_is_said(
    make_run: Make, texts: TokenDataset, tmp_path: Path
) -> None:
    run = make_run()
    found = texts_of([run], texts, None)[0]
    assert found.pieces.of([5]) == ["[5]"]
    assert "shown as numbers" in found.notes[0]
    run.record["sources"] = {"model": str(tmp_path), "tokens": None}
    assert "shown as numbers" in texts_of([run], texts, None)[0].notes[0]
    assert texts_of([run], texts, byte_tokenizer())[0].notes == ()


def test_rows_in_steps_and_backwards_are_recognized(make_run: Make, texts: TokenDataset) -> None:
    run = make_run()
    for rows in (range(1, 12, 3), range(11, 2, -2)):
        run.record["specification"]["sequences"] = {
            "first": rows.start,
            "count": len(rows),
            "stride": rows.step,
        }
        run.record["specification"]["tokens"] = texts.fingerprint(rows)
        assert texts_of([run], texts, byte_tokenizer())[0].notes == ()
