"""For tests, ours and our users': tiny series of checkpoints, and a Hub on this machine.

Everything is imported on first use: the Hub in a process of its own needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.testing.gpt_neox import (
        gpt_neox_yml,
        make_gpt_neox_series,
        write_gpt_neox,
    )
    from pythia_fast.testing.hub import HubServer
    from pythia_fast.testing.hub_process import HubProcess
    from pythia_fast.testing.hub_state import Request
    from pythia_fast.testing.repository import branches
    from pythia_fast.testing.series import make_series, random_state_dict, tiny
    from pythia_fast.testing.suite import tiny_suite

_HOME = {
    "HubProcess": "hub_process",
    "HubServer": "hub",
    "Request": "hub_state",
    "branches": "repository",
    "gpt_neox_yml": "gpt_neox",
    "make_gpt_neox_series": "gpt_neox",
    "make_series": "series",
    "random_state_dict": "series",
    "tiny": "series",
    "tiny_suite": "suite",
    "write_gpt_neox": "gpt_neox",
}

__all__ = [
    "HubProcess",
    "HubServer",
    "Request",
    "branches",
    "gpt_neox_yml",
    "make_gpt_neox_series",
    "make_series",
    "random_state_dict",
    "tiny",
    "tiny_suite",
    "write_gpt_neox",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
