"""Stream the training checkpoints of Pythia through one resident model.

    import pythia_fast

    result = pythia_fast.sweep("70m", steps="log", tokens="data/train", sequences=128)
    result.to_pandas()

Everything here is imported on first use, so that `import pythia_fast` itself is cheap.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.analysis import published
    from pythia_fast.auditing import AuditReport, audit
    from pythia_fast.errors import PythiaFastError
    from pythia_fast.evaluation import EvaluationResult, evaluate
    from pythia_fast.metrics import Batch, Memorization, MemorizationScore, Metric, Perplexity
    from pythia_fast.model import Model
    from pythia_fast.report import write_report
    from pythia_fast.runs import SweepResult, SweepResults, sweep
    from pythia_fast.runs.forecast.cluster.forecast import plan_cluster
    from pythia_fast.runs.forecast.cluster.planned import ClusterForecast
    from pythia_fast.runs.forecast.here import Forecast, plan
    from pythia_fast.runs.status import RunStatus, status
    from pythia_fast.runs.workers import Workers
    from pythia_fast.series.convert import convert
    from pythia_fast.streaming import load, stream
    from pythia_fast.suite import Architecture, ModelSpec, checkpoints, models, spec
    from pythia_fast.tokens import TokenDataset

    __version__: str

_HOME = {
    "Architecture": "suite",
    "AuditReport": "auditing",
    "Batch": "metrics",
    "ClusterForecast": "runs.forecast.cluster.planned",
    "EvaluationResult": "evaluation",
    "Forecast": "runs.forecast.here",
    "Memorization": "metrics",
    "MemorizationScore": "metrics",
    "Metric": "metrics",
    "Model": "model",
    "ModelSpec": "suite",
    "Perplexity": "metrics",
    "PythiaFastError": "errors",
    "RunStatus": "runs.status",
    "SweepResult": "runs",
    "SweepResults": "runs",
    "TokenDataset": "tokens",
    "Workers": "runs.workers",
    "audit": "auditing",
    "checkpoints": "suite",
    "convert": "series.convert",
    "evaluate": "evaluation",
    "load": "streaming",
    "models": "suite",
    "plan": "runs.forecast.here",
    "plan_cluster": "runs.forecast.cluster.forecast",
    "published": "analysis",
    "spec": "suite",
    "status": "runs.status",
    "stream": "streaming",
    "sweep": "runs",
    "write_report": "report",
}

_ROOMS = ("analysis", "errors", "testing", "tokens")
_HIDDEN = {"TYPE_CHECKING", "importlib", "_HOME", "_ROOMS", "_HIDDEN"}

__all__ = [
    "Architecture",
    "AuditReport",
    "Batch",
    "ClusterForecast",
    "EvaluationResult",
    "Forecast",
    "Memorization",
    "MemorizationScore",
    "Metric",
    "Model",
    "ModelSpec",
    "Perplexity",
    "PythiaFastError",
    "RunStatus",
    "SweepResult",
    "SweepResults",
    "TokenDataset",
    "Workers",
    "audit",
    "checkpoints",
    "convert",
    "evaluate",
    "load",
    "models",
    "plan",
    "plan_cluster",
    "published",
    "spec",
    "status",
    "stream",
    "sweep",
    "write_report",
]


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from importlib.metadata import version

        value = version("pythia-fast")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"pythia_fast.{_HOME[name]}"), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"pythia_fast.{name}")
    else:
        raise AttributeError(f"module 'pythia_fast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *__all__, "__version__"} - _HIDDEN)
