"""The suite's published evaluations: its `evals/` tree as one table, with what is odd in it."""

from pythia_fast.analysis.publications.comparing import COMPARED, compare
from pythia_fast.analysis.publications.table import SCHEMA, published

__all__ = ["COMPARED", "SCHEMA", "compare", "published"]
