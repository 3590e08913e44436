"""Tiny series: deterministic, different in every step, loadable by transformers."""

from pathlib import Path

import pytest
import torch

from pythia_fast.errors import ArgumentError
from pythia_fast.series import LocalSeries
from pythia_fast.suite import spec
from pythia_fast.testing import make_series, random_state_dict, tiny


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        folder = make_series(tmp_path / name, tiny(), (0, 1), seed=5)
        contents.append(
            {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert contents[0] == contents[1]
    assert {path.as_posix() for path in contents[0]} == {
        "step0/model.safetensors",
        "step0/config.json",
        "step1/pytorch_model.bin",
        "step1/config.json",
    }


def test_the_same_call_twice_keeps_what_is_there(tmp_path: Path) -> None:
    folder = make_series(tmp_path / "s", tiny(), (0, 1), seed=5)
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert make_series(folder, tiny(), (0, 1), seed=5) == folder
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before
    make_series(folder, tiny(), (0, 1, 2), seed=5)  # and it goes on
    assert (folder / "step2").is_dir()
    for change in ({"seed": 6}, {"formats": ("torch",)}, {"shard_bytes": 100_000}):
        with pytest.raises(ArgumentError, match="step0 already holds weights"):
            make_series(folder, tiny(), (0, 1), **{"seed": 5, **change})
    (folder / "step0" / "pytorch_model.bin").touch()
    with pytest.raises(ArgumentError, match="step0 already holds weights"):
        make_series(folder, tiny(), (0, 1), seed=5)


def test_steps_and_seeds_differ(tmp_path: Path) -> None:
    first = random_state_dict(tiny(), step=0)
    for other in (random_state_dict(tiny(), step=1), random_state_dict(tiny(), seed=1)):
        assert not any(torch.equal(first[name], other[name]) for name in first)
    folder = make_series(tmp_path / "s", tiny(), range(6))
    series = LocalSeries(folder)
    assert len({series.open(step).weights_sha256 for step in series.steps}) == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_have_the_scale_of_a_fresh_model(dtype: torch.dtype) -> None:
    architecture = spec("14m").architecture
    weights = random_state_dict(architecture, dtype=dtype)
    assert {name: tuple(t.shape) for name, t in weights.items()} == architecture.shapes()
    assert sum(t.numel() for t in weights.values()) == architecture.parameters
    assert all(t.isfinite().all() and t.dtype == dtype for t in weights.values())
    qkv = weights["gpt_neox.layers.0.attention.query_key_value.weight"].float()
    assert qkv.std().item() == pytest.approx((2 / (5 * 128)) ** 0.5, rel=0.02)
    assert weights["gpt_neox.final_layer_norm.weight"].float().mean().item() == pytest.approx(
        1, abs=0.01
    )


def test_tiny_takes_what_tests_vary() -> None:
    assert tiny().parameters == 116_480
    assert (tiny().head_dim, tiny().rotary_dims, tiny().parallel_residual) == (16, 4, True)
    wide = tiny(layers=1, width=160, heads=2, rotary_dims=20, parallel_residual=False)
    assert (wide.head_dim, wide.rotary_dims, wide.parallel_residual) == (80, 20, False)
