"""Token data: where sequences of ids come from, and how they are written."""

from pythia_fast.tokens.dataset import TokenDataset, TokenSource
from pythia_fast.tokens.sources import load_tokenizer
from pythia_fast.tokens.steps import position_of, rows_of_step, seen
from pythia_fast.tokens.write import write_tokens

__all__ = [
    "TokenDataset",
    "TokenSource",
    "load_tokenizer",
    "position_of",
    "rows_of_step",
    "seen",
    "write_tokens",
]
