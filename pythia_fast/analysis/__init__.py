"""From the numbers of sweeps and evaluations to findings: tables and figures.

Everything is imported on first use. A module has another name than the function in it, which it
would otherwise replace as soon as it is imported.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.analysis.emerging import emergence
    from pythia_fast.analysis.order import training_order
    from pythia_fast.analysis.prediction import predictability
    from pythia_fast.analysis.publications import compare, published
    from pythia_fast.analysis.study import Study

_HOME = {
    "Study": "study",
    "compare": "publications",
    "emergence": "emerging",
    "predictability": "prediction",
    "published": "publications",
    "training_order": "order",
}

__all__ = [
    "Study",
    "compare",
    "emergence",
    "predictability",
    "published",
    "training_order",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
