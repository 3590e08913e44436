"""What exists: the models of the suite, their names, steps and known faults. Facts, no I/O."""

from pythia_fast.suite.anomalies import Anomaly, anomalies
from pythia_fast.suite.architecture import Activation, Architecture
from pythia_fast.suite.describe import card, table
from pythia_fast.suite.model_spec import ModelSpec
from pythia_fast.suite.models import SUITE, checkpoints, models, spec
from pythia_fast.suite.steps import (
    SEQUENCES_PER_STEP,
    STEPS,
    STEPS_V0,
    TOKENS_PER_STEP,
    Steps,
    parse_steps,
)

__all__ = [
    "SEQUENCES_PER_STEP",
    "STEPS",
    "STEPS_V0",
    "SUITE",
    "TOKENS_PER_STEP",
    "Activation",
    "Anomaly",
    "Architecture",
    "ModelSpec",
    "Steps",
    "anomalies",
    "card",
    "checkpoints",
    "models",
    "parse_steps",
    "spec",
    "table",
]
