"""The order of training: built, kept in files, and compared with what was published shuffled."""

from pythia_fast.tokens.order.building import PYTHIA_SAMPLES, Order, build, epochs_needed
from pythia_fast.tokens.order.compare_rows import verify

__all__ = ["PYTHIA_SAMPLES", "Order", "build", "epochs_needed", "verify"]
