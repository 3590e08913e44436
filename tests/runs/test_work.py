"""Operations counted from shapes, against torch's own counter over transformers' model."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.metrics import Memorization, Perplexity
from pythia_fast.runs.work import Data, forward_flops, sweep_flops, usual_positions
from pythia_fast.suite import Architecture, ModelSpec
from pythia_fast.tokens import TokenDataset, write_tokens


@pytest.mark.parametrize("positions", [1, 7, 64])
@pytest.mark.parametrize("intermediate", [256, 192])
def test_a_forward_pass(tiny: Architecture, positions: int, intermediate: int) -> None:
    shape = replace(tiny, intermediate=intermediate, layers=3)
    config = GPTNeoXConfig(**shape.to_config(), attn_implementation="eager")
    model = GPTNeoXForCausalLM(config).eval()
    ids = torch.zeros(2, positions, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    rotary = _rotary(model, ids)
    assert 2 * forward_flops(shape, positions) == counter.get_total_flops() - rotary


def _rotary(model: GPTNeoXForCausalLM, ids: torch.Tensor) -> int:
    """transformers makes its table of angles with a matrix product, which is no work of a block."""
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.gpt_neox.rotary_emb(torch.zeros(1, 1), positions)
    return int(counter.get_total_flops())


def test_it_is_the_papers_formula() -> None:
    """24 B s l h² (1 + s/6h + V/12lh), the forward part of arXiv:2104.04473, for 12b."""
    a = pythia_fast.spec("12b").architecture
    s, h, v = 2048, a.width, a.vocab_rows
    paper = 24 * s * a.layers * h * h * (1 + s / (6 * h) + v / (12 * a.layers * h))
    assert forward_flops(a, s) == pytest.approx(paper, rel=1e-12)


def spec(tiny: Architecture) -> ModelSpec:
    return ModelSpec.local("tiny", tiny, (0, 1))


def test_a_sweep_is_its_sequences(tiny: Architecture, tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", [[0] * length for length in (5, 9, 9, 2)])
    data = Data(TokenDataset(tmp_path / "data"))
    flops = sweep_flops(spec(tiny), (0, 1), (Perplexity(),), data, slice(1, None))
    each = [forward_flops(tiny, positions) for positions in (8, 8, 1)]
    assert flops == 2 * sum(each)


def test_how_many_positions_a_pass_usually_has(tiny: Architecture, tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", [[0] * length for length in (5, 9, 9, 90)])
    data = Data(TokenDataset(tmp_path / "data"))
    positions = partial(usual_positions, spec(tiny), 1)
    assert positions((Perplexity(),), data, slice(0, 3)) == 7  # of 4, 8 and 8
    assert positions((Memorization(2, 2),), data, slice(0, 3)) == 3
    assert positions((Perplexity(), Memorization(3, 2)), data, slice(1, 3)) == 6  # of 8 and 4
    assert positions((Perplexity(),), data, 0) == tiny.max_positions
    hub = partial(usual_positions, pythia_fast.spec("70m"), 1)
    assert hub((Perplexity(),), Data(None), 512) == 2048


def test_metrics_that_share_scores_share_the_pass(tiny: Architecture) -> None:
    data = Data(TokenDataset(np.zeros((4, 10), np.int64)))
    both = (Perplexity(), Memorization(4, 6))
    assert sweep_flops(spec(tiny), (0,), both, data, 4) == 4 * forward_flops(tiny, 9)
    apart = (Perplexity(), Memorization(2, 2))
    expected = 4 * (forward_flops(tiny, 9) + forward_flops(tiny, 3))
    assert sweep_flops(spec(tiny), (0,), apart, data, 4) == expected


@pytest.mark.parametrize(("sequences", "rows"), [("seen", 1024 * 3), (7, 14), ("unseen", None)])
def test_the_training_data_need_not_be_there(sequences: int | str, rows: int | None) -> None:
    model = pythia_fast.spec("70m")
    if rows is None:
        rows = 2 * 146_432_000 - 1024 * 3
    flops = sweep_flops(model, (1, 2), (Perplexity(),), Data(None), sequences)  # type: ignore
    assert flops == rows * forward_flops(model.architecture, 2048)


def test_no_rows_are_no_work() -> None:
    model = pythia_fast.spec("70m")
    assert sweep_flops(model, (0,), (Perplexity(),), Data(None), "seen") == 0
