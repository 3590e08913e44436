"""One resident model, and the weights of checkpoint after checkpoint flowing into it."""

from pythia_fast.streaming.resident import load, stream

__all__ = ["load", "stream"]
