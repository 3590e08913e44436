"""What is measured to know how fast a sweep will compute; how fast that is nobody can say."""

from dataclasses import replace

import pytest
import torch

from pythia_fast.model import Model, resolve_precision
from pythia_fast.runs.forecast import rates
from pythia_fast.runs.work import forward_flops
from pythia_fast.suite import Architecture

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("positions", "shape"),
    [
        (63, (65, 64)),  # as many as make 4096 tokens
        (100, (40, 101)),
        (2048, (32, 129)),  # as many as the model can have
    ],
)
def test_a_layer_and_its_part_of_the_vocabulary_over_the_sweeps_own_lengths(
    tiny: Architecture, monkeypatch: pytest.MonkeyPatch, positions: int, shape: tuple[int, int]
) -> None:
    passes = []

    def nll(self: Model, ids: torch.Tensor) -> None:
        passes.append((self.architecture, tuple(ids.shape)))

    monkeypatch.setattr(Model, "nll", nll)
    monkeypatch.setattr(rates, "MEASURE_S", 0.001)
    architecture = replace(tiny, layers=3, vocab_rows=160)
    precision = resolve_precision("float32", CPU, architecture)
    assert rates.compute_flop_per_s(architecture, precision, CPU, positions) > 0
    assert set(passes) == {(replace(tiny, layers=1, vocab_rows=54), shape)}


def test_what_would_take_too_long_is_measured_of_less(
    tiny: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    monkeypatch.setattr(Model, "nll", lambda self, ids: passes.append(tuple(ids.shape)))
    monkeypatch.setattr(rates, "MEASURE_S", 0.001)
    one = replace(tiny, layers=1)
    monkeypatch.setattr(rates, "MEASURE_FLOPS", 8 * forward_flops(one, 64) + 7)
    precision = resolve_precision("float32", CPU, one)
    rates.compute_flop_per_s(one, precision, CPU, 128)
    assert set(passes) == {(1, 129)}


def test_the_usual_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the best, in which no hour goes by."""
    clock = iter([0, 0, 5, 5, 6, 6, 16, 16, 26])
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(rates, "MEASURE_S", 20)
    assert rates._usual_s(lambda: None) == 7.5  # of 5, 1, 10 and 10
