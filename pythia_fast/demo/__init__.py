"""Everything in about a minute, with no network and no GPU: train, save a suite, sweep it, look."""

from pythia_fast.demo.recipe import Recipe
from pythia_fast.demo.story import Story, run_demo
from pythia_fast.demo.telling import told

__all__ = ["Recipe", "Story", "run_demo", "told"]
