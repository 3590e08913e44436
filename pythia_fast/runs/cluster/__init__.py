"""The engine for many machines: Ray actors, each with a resident model, and a driver for all."""

from pythia_fast.runs.cluster.connecting import Cluster
from pythia_fast.runs.cluster.driver import RayEngine

__all__ = ["Cluster", "RayEngine"]
