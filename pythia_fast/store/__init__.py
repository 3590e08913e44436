"""A store of checkpoint files, by their hash, shared by processes, within a budget."""

from pythia_fast.store.claims import Claim, Hold, Stopped, Waiting
from pythia_fast.store.store import CheckpointStore, default_root

__all__ = ["CheckpointStore", "Claim", "Hold", "Stopped", "Waiting", "default_root"]
