"""What a sweep says of its work before it begins."""

from pathlib import Path

import numpy as np

import pythia_fast
from pythia_fast.metrics import Perplexity
from pythia_fast.runs.job import sequences_words
from pythia_fast.runs.plan import Plan, Sequences
from pythia_fast.tokens import TokenDataset, write_tokens


def words(dataset: TokenDataset, sequences: Sequences, *steps: int) -> str:
    spec = pythia_fast.spec("14m")
    plan = Plan(spec, steps, (Perplexity(),), dataset, sequences, "float32", deterministic=False)
    return sequences_words(plan, steps)


def test_sequences_of_different_lengths(tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", [list(range(3 + row % 4)) for row in range(24)])
    dataset = TokenDataset(tmp_path / "data")
    assert words(dataset, slice(None), 0, 1) == "24 sequences of 3 to 6 tokens"
    assert words(dataset, slice(0, 24, 4), 0, 1) == "6 sequences of 3 tokens"
    assert words(dataset, 25, 0) == ("24 sequences of 3 to 6 tokens (all there are: fewer than 25)")


def test_steps_that_look_at_sequences_of_their_own() -> None:
    dataset = TokenDataset(np.zeros((3000, 8), np.int64))
    assert words(dataset, "seen", 1, 2, 4) == "1,024 to 3,000 sequences of 8 tokens"
    assert words(dataset, "unseen", 4) == "0 sequences"
