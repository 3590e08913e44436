"""Texts to tokens on disk, beside the tokenizers library that only encodes what is in memory."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from comparison import Comparison
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.text.tokenize import tokenize

TEXT_CHARACTERS = 3_000
VOCABULARY = 16_384
ASKED = 0.9


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Python's own sources in pieces: some 10 MB of words, names and numbers."""
    found = []
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in sorted([*stdlib.glob("*.py"), *stdlib.glob("[a-r]*/*.py")]):
        source = path.read_text(encoding="utf-8", errors="ignore")
        found += [
            source[begin : begin + TEXT_CHARACTERS]
            for begin in range(0, len(source), TEXT_CHARACTERS)
        ]
    return found


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE, as Pythia's, trained on the spot on every fourth text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    made.train_from_iterator(texts[::4], trainer)
    return made


def test_tokenize_against_the_library(
    benchmark: Any,
    comparison: Comparison,
    texts: list[str],
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    """Ours reads JSONL and writes the pair too; the library's ids are not even looked at."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def ours() -> None:
        tokenize([path], tokenizer, tmp_path / "out")

    ours()
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    data = TokenDataset(tmp_path / "out")
    assert len(data) == len(texts)
    assert all(row.tolist() == each.ids for row, each in zip(data, encodings, strict=True))
    tokens = int(data.lengths.sum())
    del encodings
    comparison.run(
        benchmark,
        f"{len(texts):,} texts, {tokens:,} tokens, from JSONL to .idx/.bin",
        ours,
        {
            "tokenizers' encode_batch": lambda: tokenizer.encode_batch(
                texts, add_special_tokens=False
            ),
            "tokenizers' encode_batch_fast": lambda: tokenizer.encode_batch_fast(
                texts, add_special_tokens=False
            ),
        },
        cache="page cache warm",
        target={
            "tokenizers' encode_batch": ASKED,
            "tokenizers' encode_batch_fast": ASKED,
        },
    )
