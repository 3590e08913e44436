"""Evaluation by lm-evaluation-harness, checkpoint after checkpoint (extra: `eval`)."""

from pythia_fast.evaluation.adapter import harness_model
from pythia_fast.evaluation.evaluating import evaluate
from pythia_fast.evaluation.likelihood import Continuations, continuations
from pythia_fast.evaluation.results import EvaluationResult
from pythia_fast.evaluation.tasks import SUITE, task_names
from pythia_fast.evaluation.tidy import TIDY

__all__ = [
    "SUITE",
    "TIDY",
    "Continuations",
    "EvaluationResult",
    "continuations",
    "evaluate",
    "harness_model",
    "task_names",
]
