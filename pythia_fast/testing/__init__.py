"""For tests, ours and our users': tiny series of checkpoints, and a Hub on this machine."""

from pythia_fast.testing.gpt_neox import gpt_neox_yml, make_gpt_neox_series, write_gpt_neox
from pythia_fast.testing.hub import HubServer
from pythia_fast.testing.hub_state import Request
from pythia_fast.testing.series import make_series, random_state_dict, tiny

__all__ = [
    "HubServer",
    "Request",
    "gpt_neox_yml",
    "make_gpt_neox_series",
    "make_series",
    "random_state_dict",
    "tiny",
    "write_gpt_neox",
]
