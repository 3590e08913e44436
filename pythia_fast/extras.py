"""Packages that only some functions need: imported there, and asked for by name where absent."""

import importlib
from typing import Any

from pythia_fast.errors import ArgumentError

_EXTRAS = {
    "lm_eval": "eval",
    "matplotlib": "analysis",
    "plotly": "analysis",
    "scipy": "analysis",
    "statsmodels": "analysis",
}
"""Which extra brings a package, where it has another name."""


def require(module: str) -> Any:
    """Import `module`, such as "pandas" or "scipy.stats".

    ArgumentError that says what to install if its package is not there.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(package, package)
        raise ArgumentError(
            f"{error.name or package} is not installed: pip install 'pythia-fast[{extra}]'"
        ) from error
