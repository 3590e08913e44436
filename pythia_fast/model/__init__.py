"""The resident model: weights in one arena, the forward pass, scores and decoding."""

from pythia_fast.model.generate import Decide, greedy_steps, sequences_at_once
from pythia_fast.model.model import Model
from pythia_fast.model.packed import packed_bytes
from pythia_fast.model.precision import Precision, known_precision, resolve_precision
from pythia_fast.model.reading import LoadReport
from pythia_fast.model.streams import ends_context, sent, streams_of
from pythia_fast.model.text import Completion, TokenizerSource, complete
from pythia_fast.model.weights import Weights

__all__ = [
    "Completion",
    "Decide",
    "LoadReport",
    "Model",
    "Precision",
    "TokenizerSource",
    "Weights",
    "complete",
    "ends_context",
    "greedy_steps",
    "known_precision",
    "packed_bytes",
    "resolve_precision",
    "sent",
    "sequences_at_once",
    "streams_of",
]
