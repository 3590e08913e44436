"""Sweeps: what is computed (plan), from what (stream), and what is kept of it (folder, results)."""

from pythia_fast.runs.gaps import Gap
from pythia_fast.runs.results import SweepResult
from pythia_fast.runs.several import SweepResults
from pythia_fast.runs.streaming import load, stream
from pythia_fast.runs.sweeping import sweep

__all__ = ["Gap", "SweepResult", "SweepResults", "load", "stream", "sweep"]
