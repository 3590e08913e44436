"""Sweeps: what is computed (plan), by whom (engines), and what is kept of it (folder, results)."""

from pythia_fast.runs.results.gaps import Gap
from pythia_fast.runs.results.result import SweepResult
from pythia_fast.runs.results.several import SweepResults
from pythia_fast.runs.sweeping import sweep

__all__ = ["Gap", "SweepResult", "SweepResults", "sweep"]
