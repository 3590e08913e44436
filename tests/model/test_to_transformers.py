"""The same model in transformers: its numbers, its words, its config."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, GPTNeoXForCausalLM
from transformers.utils import logging

import pythia_fast
from pythia_fast.errors import ArgumentError
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import tiny_suite

IDS = torch.randint(160, (5, 40), generator=torch.Generator().manual_seed(2))

PUBLISHED = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
"""pythia-70m's config.json on the Hub."""


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_logits_and_greedy_text_are_the_same(
    tiny: Architecture, pair_of: Callable, parallel: bool, activation: str
) -> None:
    shape = replace(tiny, parallel_residual=parallel, activation=activation, rotary_dims=8)
    ours = pair_of(shape).ours
    peer = ours.to_transformers()
    assert not peer.training
    assert peer.dtype == torch.float32
    with torch.no_grad():
        logits_BTV = peer(IDS).logits
    torch.testing.assert_close(ours(IDS), logits_BTV, rtol=0, atol=2e-5)
    written = peer.generate(
        IDS[:2], attention_mask=torch.ones_like(IDS[:2]), max_new_tokens=12, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(written, ours.generate(IDS[:2], 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_is_there_in_its_dtype(
    tiny: Architecture, pair_of: Callable, dtype: torch.dtype
) -> None:
    ours = pair_of(tiny, dtype).ours
    peer = ours.to_transformers()
    theirs = {name.replace("lm_head.", "embed_out."): x for name, x in peer.state_dict().items()}
    state = ours.state_dict()
    assert theirs.keys() == state.keys()
    for name, x in theirs.items():
        assert x.dtype == dtype
        assert torch.equal(x, state[name]), name
    assert peer.config.dtype == dtype
    assert peer.gpt_neox.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_another_dtype_may_be_asked_for(
    tiny: Architecture, pair_of: Callable, dtype: torch.dtype | str
) -> None:
    ours = pair_of(tiny).ours
    peer = ours.to_transformers(dtype=dtype)
    assert {x.dtype for x in peer.parameters()} == {torch.bfloat16}
    assert ours.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int8", torch.float64, "auto", 3])
def test_a_dtype_that_is_none_is_refused(
    tiny: Architecture, pair_of: Callable, dtype: object
) -> None:
    with pytest.raises(ArgumentError, match="float32, bfloat16 or float16"):
        pair_of(tiny).ours.to_transformers(dtype=dtype)


def test_the_copy_outlives_the_step_and_may_be_trained(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2))
    copies = {step: model.to_transformers() for step, model in pythia_fast.stream(suite)}
    ids = torch.tensor([[1, 2, 3, 4]])
    for step, peer in copies.items():
        expected = GPTNeoXForCausalLM.from_pretrained(suite / f"step{step}", dtype=torch.float32)
        with torch.no_grad():
            assert torch.equal(peer(ids).logits, expected(ids).logits)
    one = pythia_fast.load(suite, 1)
    before = one(ids)
    copies[1].train()
    copies[1](ids, labels=ids).loss.backward()
    torch.optim.SGD(copies[1].parameters(), lr=1.0).step()
    assert torch.equal(one(ids), before)
    assert not torch.equal(copies[1](ids).logits, before)


def test_the_config_is_that_of_the_hub(tmp_path: Path) -> None:
    published = tmp_path / "step0"
    published.mkdir()
    (published / "config.json").write_text(json.dumps(PUBLISHED))
    theirs = AutoConfig.from_pretrained(published)
    shape = Architecture.from_config(PUBLISHED, "config.json")
    assert shape == spec("70m").architecture
    model = pythia_fast.Model(
        pythia_fast.model.Weights(shape, dtype=torch.float16), spec("70m"), step=0
    )
    peer = model.to_transformers()
    assert peer.config.name_or_path == "EleutherAI/pythia-70m"
    different = {
        key
        for key in theirs.to_dict() | peer.config.to_dict()
        if theirs.to_dict().get(key) != peer.config.to_dict().get(key)
    }
    assert different <= {"_name_or_path"}


def test_it_can_be_saved_and_swept_again(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0,))
    model = pythia_fast.load(suite, 0)
    model.to_transformers().save_pretrained(tmp_path / "saved/step7")
    again = pythia_fast.load(tmp_path / "saved", 7)
    assert torch.equal(again([[1, 2, 3]]), model([[1, 2, 3]]))


@pytest.mark.parametrize("shown", [True, False])
def test_no_bar_is_drawn_and_the_setting_stays(
    tiny: Architecture, pair_of: Callable, capfd: pytest.CaptureFixture[str], shown: bool
) -> None:
    before = logging.is_progress_bar_enabled()
    try:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        pair_of(tiny).ours.to_transformers()
        assert logging.is_progress_bar_enabled() is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
    assert capfd.readouterr() == ("", "")


def test_without_transformers_it_says_what_to_install(
    tiny: Architecture, pair_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = pair_of(tiny).ours
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ArgumentError, match=r"pip install 'pythia-fast\[transformers\]'"):
        ours.to_transformers()
