"""Peers: transformers' model and ours with the same random weights, at sizes that matter.

transformers' own initial weights give logits of about 0.1; these are of the size of a trained
model's (deviation 3, largest about 13), so that an absolute tolerance means something.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.initialization import no_init_weights

from pythia_fast.model import Model, Weights
from pythia_fast.suite import Architecture, ModelSpec, spec

SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")


def scaled(size: str) -> Architecture:
    """A size of the suite with 2 layers and 2 heads, all else as it is."""
    architecture = spec(size).architecture
    width = 2 * architecture.head_dim
    return replace(architecture, layers=2, heads=2, width=width, intermediate=4 * width)


@lru_cache(maxsize=2)
def random_state(architecture: Architecture, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in architecture.shapes().items():
        noise = torch.randn(shape, generator=g)
        if name.endswith("norm.weight"):
            state[name] = 1 + 0.2 * noise
        elif name.endswith("bias"):
            state[name] = 0.1 * noise
        elif name == "gpt_neox.embed_in.weight":
            state[name] = noise
        else:
            state[name] = noise * (3 if name == "embed_out.weight" else 1) / shape[1] ** 0.5
    return state


def to_transformers(
    architecture: Architecture,
    state: dict[str, torch.Tensor],
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(**architecture.to_config())
    with no_init_weights():
        peer = GPTNeoXForCausalLM._from_config(
            config, dtype=torch.float32, attn_implementation=attention
        )
    renamed = {name.replace("embed_out.", "lm_head."): state[name] for name in state}
    peer.load_state_dict(renamed)
    inverse_frequencies = peer.gpt_neox.rotary_emb.inv_freq.clone()
    peer = peer.to(dtype).eval()
    peer.gpt_neox.rotary_emb.inv_freq = inverse_frequencies  # float32, as from_pretrained keeps it
    return peer


def to_ours(
    architecture: Architecture, state: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> Model:
    weights = Weights(architecture, dtype=dtype)
    weights.load_state_dict(state)
    return Model(weights, ModelSpec.local("random", architecture, (0,)))


@dataclass(frozen=True)
class Pair:
    architecture: Architecture
    state: dict[str, torch.Tensor]
    ours: Model
    peer: GPTNeoXForCausalLM


@pytest.fixture(scope="session")
def pair_of() -> Callable[..., Pair]:
    def make(
        architecture: Architecture,
        dtype: torch.dtype = torch.float32,
        *,
        seed: int = 0,
        attention: str = "sdpa",
    ) -> Pair:
        state = {name: x.to(dtype).float() for name, x in random_state(architecture, seed).items()}
        return Pair(
            architecture,
            state,
            to_ours(architecture, state, dtype),
            to_transformers(architecture, state, dtype, attention),
        )

    return make


@pytest.fixture(scope="session", name="to_transformers")
def _to_transformers() -> Callable[..., GPTNeoXForCausalLM]:
    return to_transformers


@pytest.fixture(scope="session", name="scaled")
def _scaled() -> Callable[[str], Architecture]:
    return scaled


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> Architecture:
    """Each size of the suite, scaled down."""
    return scaled(request.param)


@pytest.fixture(scope="session")
def small(tiny: Architecture) -> Architecture:
    """A small one with room for long inputs."""
    return replace(tiny, max_positions=2048)
