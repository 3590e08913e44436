"""A sweep on many workers, played through in simulated time with the real run's own dispatcher.

What a step goes through on a worker is what a `Pipeline` does: its bytes come over a wire that all
workers share and are hashed as they come, it is read into one of two arenas while the step before
is computed, it is computed, and its results are written while the next one is.
"""

from collections.abc import Sequence

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.forecast.simulation.cluster import (
    BUSY,
    SPENT,
    Cluster,
    Simulated,
    SimulatedStep,
    Spent,
)
from pythia_fast.runs.forecast.simulation.play import Play

__all__ = ["BUSY", "SPENT", "Cluster", "Simulated", "SimulatedStep", "Spent", "simulate"]


def simulate(steps: Sequence[SimulatedStep], cluster: Cluster) -> Simulated:
    """Play the steps through on the cluster. Deterministic; nothing is read, sent or waited for.

    ArgumentError if a step is there twice, or one's download is larger than the disk budget.
    """
    budget = cluster.disk_budget_bytes
    for step in steps:
        if budget is not None and step.download_bytes and step.disk_bytes > budget:
            raise ArgumentError(
                f"a disk budget of {budget:,} bytes is too small: step {step.task.step} alone "
                f"takes {step.disk_bytes:,.0f}"
            )
    return Play(steps, cluster).run()
