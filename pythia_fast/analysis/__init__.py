"""From the numbers of sweeps and evaluations to findings: tables and figures.

Everything is imported on first use. A module has another name than the function in it, which it
would otherwise replace as soon as it is imported.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.analysis.arithmetic import Arithmetic, Question, Questions
    from pythia_fast.analysis.emerging import emergence
    from pythia_fast.analysis.frequency import term_frequency
    from pythia_fast.analysis.gender import gender_bias
    from pythia_fast.analysis.order import training_order
    from pythia_fast.analysis.prediction import predictability
    from pythia_fast.analysis.pronouns import Swapped, swap_pronouns
    from pythia_fast.analysis.publications import compare, published
    from pythia_fast.analysis.study import Study
    from pythia_fast.analysis.wino_bias import wino_bias_tasks

_HOME = {
    "Arithmetic": "arithmetic",
    "Question": "arithmetic",
    "Questions": "arithmetic",
    "Study": "study",
    "Swapped": "pronouns",
    "compare": "publications",
    "emergence": "emerging",
    "gender_bias": "gender",
    "predictability": "prediction",
    "published": "publications",
    "swap_pronouns": "pronouns",
    "term_frequency": "frequency",
    "training_order": "order",
    "wino_bias_tasks": "wino_bias",
}

__all__ = [
    "Arithmetic",
    "Question",
    "Questions",
    "Study",
    "Swapped",
    "compare",
    "emergence",
    "gender_bias",
    "predictability",
    "published",
    "swap_pronouns",
    "term_frequency",
    "training_order",
    "wino_bias_tasks",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
