"""The modes of torch that the caller is in change nothing of what a model says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import pythia_fast
from pythia_fast.model import Model
from pythia_fast.model.generate import greedy_steps


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
}


def answers(model: Model, ids: np.ndarray) -> dict[str, list[object]]:
    """Of every kind of question, in plain numbers."""
    at = [torch.tensor(each, device="cpu") for each in ([0, 1], [3, 4], [5, 6])]
    prompt = torch.from_numpy(ids[:5, :8])
    lens = model.lens_scores(ids, [1, 2])
    return {
        "logits": model(ids[:2]).float().tolist(),
        "nll": model.nll(ids).tolist(),
        "score": model.score(ids, 3).margin.tolist(),
        "score_at": model.score_at(ids, *at).nll.tolist(),
        "exact": model.exact(ids[:2]).nll.tolist(),
        "decide": [each.tolist() for each in model.decide(ids[:2])],
        "near_tie": [model.near_tie],
        "hidden_states": [x.float().tolist() for x in model.hidden_states(ids[:2]).values()],
        "logit_lens": [x.float().tolist() for x in model.logit_lens(ids[:1]).values()],
        "lens_scores": [each.nll.tolist() for each in lens.values()],
        "greedy": model.generate(ids[:5, :8], 6).tolist(),
        "steps": [token_B.tolist() for token_B, _ in greedy_steps(model, prompt, 3)],
        "drawn": model.generate(ids[:2, :8], 6, temperature=1.0, top_k=9, seed=3).tolist(),
    }


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("dtype", "natively"), [("float32", False), ("bfloat16", True)])
def test_a_model_says_the_same(
    tiny_series: Path, tiny_ids: np.ndarray, setting: str, dtype: str, natively: bool
) -> None:
    def ask() -> dict[str, list[object]]:
        model = pythia_fast.load(tiny_series, 8, device="cpu", dtype=dtype, progress=False)
        if not natively:
            model.native = None
        return answers(model, tiny_ids)

    expected = ask()
    with SETTINGS[setting]():
        found = ask()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_sweep_finds_the_same(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path: Path, setting: str
) -> None:
    def sweep(out: str) -> list[float]:
        return (
            pythia_fast.sweep(
                tiny_series,
                steps=[0, 8],
                tokens=tiny_ids,
                metrics=["perplexity", "memorization", "memorization-score"],
                out=tmp_path / out,
                device="cpu",
                progress=False,
            )
            .table["value"]
            .to_pylist()
        )

    expected = sweep("as torch begins")
    with SETTINGS[setting]():
        assert sweep("set") == expected


ANSWERS: dict[str, Callable[[Model, np.ndarray], torch.Tensor]] = {
    "logits": lambda model, ids: model(ids),
    "nll": lambda model, ids: model.nll(ids),
    "score": lambda model, ids: model.score(ids).margin,
    "exact": lambda model, ids: model.exact(ids).nll,
    "hidden_states": lambda model, ids: model.hidden_states(ids, [1])[1],
    "logit_lens": lambda model, ids: model.logit_lens(ids, [1])[1],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_probe_can_be_trained_on_what_comes_out(
    tiny_series: Path, tiny_ids: np.ndarray, name: str
) -> None:
    """And it can be written to, which tensors of inference mode cannot."""
    model = pythia_fast.load(tiny_series, 8, dtype="float32", progress=False)
    said = ANSWERS[name](model, tiny_ids[:2])
    assert not said.requires_grad
    probe = torch.nn.Linear(said.shape[-1], 1, device=said.device)
    probe(said).sum().backward()
    assert probe.weight.grad is not None
    said.mul_(2)
