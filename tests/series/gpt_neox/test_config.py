"""GPT-NeoX's yml files: what they say, what they leave to defaults, and how they can be wrong."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pythia_fast.errors import FormatError, MissingCheckpointError, PythiaFastError
from pythia_fast.series import open_series
from pythia_fast.series.gpt_neox.config import YML_LIMIT_BYTES, find_yml, read_yml
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import gpt_neox_yml, make_gpt_neox_series, tiny

OF_70M = """
# as published with Pythia, shortened
{
  "pipe-parallel-size": 1,
  "model-parallel-size": 1,
  "num-layers": 6,
  "hidden-size": 512,
  "num-attention-heads": 8,
  "seq-length": 2048,
  "max-position-embeddings": 2048,
  "pos-emb": "rotary",
  "rotary-pct": 0.25,
  "no-weight-tying": true,
  "gpt-j-residual": true,
  "attention-config": [[["flash"], 6]],
  "optimizer": {"type": "Adam", "params": {"lr": 0.001, "betas": [0.9, 0.95], "eps": 1.0e-8}},
  "fp16": {"fp16": true, "enabled": true, "loss_scale": 0},
  "train-iters": 143000,
}
"""


def read(tmp_path: Path, *texts: str, vocab_rows: int = 128) -> Architecture:
    paths = [tmp_path / f"{number}.yml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return read_yml(paths, vocab_rows)


def test_pythias_own(tmp_path: Path) -> None:
    assert read(tmp_path, OF_70M, vocab_rows=50304) == spec("70m").architecture


def test_defaults_are_those_of_gpt_neox(tmp_path: Path) -> None:
    text = """
num_layers: 2
hidden_size: 64
num-attention-heads: 4
max-position-embeddings: 32
pos-emb: rotary
no_weight_tying: True
layernorm-epsilon: 1e-6
"""
    found = read(tmp_path, text)
    assert found == Architecture(
        layers=2,
        width=64,
        heads=4,
        vocab_rows=128,
        intermediate=256,
        rotary_dims=16,
        layer_norm_eps=1e-6,
        parallel_residual=False,
        max_positions=32,
    )


@pytest.mark.parametrize("architecture", [tiny(), tiny(parallel_residual=False, rotary_dims=2)])
def test_what_is_written_is_read(tmp_path: Path, architecture: Architecture) -> None:
    assert read(tmp_path, gpt_neox_yml(architecture, 4)) == architecture


def test_several_files_are_one_configuration(tmp_path: Path) -> None:
    text = gpt_neox_yml(tiny())
    assert read(tmp_path, text, "data_path: x\nnum_layers: 2\n") == tiny()
    with pytest.raises(FormatError, match=r"1\.yml.*'num_layers' is here and in another file"):
        read(tmp_path, text, "num-layers: 3")


def test_where_they_are_looked_for(tmp_path: Path) -> None:
    beside = tmp_path / "run"
    own, shared = beside / "global_step0/configs", beside / "configs"
    make_gpt_neox_series(beside, tiny(), (0, 1))
    assert open_series(beside).spec.architecture == tiny()
    (own / "model.yml").rename(beside / "model.yml")
    (beside / "global_step1/configs/model.yml").unlink()
    assert open_series(beside).open(1).architecture == tiny()
    shared.mkdir()
    (beside / "model.yml").rename(shared / "model.yaml")
    assert open_series(beside).open(0).architecture == tiny()
    assert find_yml(own, shared, beside) == (shared / "model.yaml",)
    (shared / "model.yaml").write_text("data_path: x")
    with pytest.raises(MissingCheckpointError, match="num_layers"):
        open_series(beside)


CHANGES = {
    "tied": ('"no-weight-tying": true', '"no-weight-tying": false', "no_weight_tying is False"),
    "learned": ('"pos-emb": "rotary",', "", "pos_emb is 'learned'; only 'rotary'"),
    "rms": ('"norm": "layernorm"', '"norm": "rmsnorm"', "norm is 'rmsnorm'"),
    "relu": ('"activation": "gelu"', '"activation": "relu"', "activation 'relu'"),
    "a list": ('"activation": "gelu"', '"activation": [gelu]', "activation a list"),
    "text": ('"num-layers": 2', '"num-layers": "2"', "num_layers is '2', no integer"),
    "truth": ('"num-layers": 2', '"num-layers": true', "num_layers is True, no integer"),
    "none": ('"hidden_size": 64', '"hidden_size": ', "hidden_size is None"),
    "nan": ('"rotary-pct": 0.25', '"rotary-pct": .nan', "makes no sense"),
    "word": ('"rotary-pct": 0.25', '"rotary-pct": much', "no number"),
    "huge": ('"hidden_size": 64', '"hidden_size": 99999999999999', "makes no sense"),
    "fewer keys and values": ('"fp16"', '"num-kv-heads": 2, "fp16"', "num_kv_heads is 2"),
    "twice": ('"fp16"', '"hidden_size": 64, "fp16"', "appears twice"),
    "twice, differently": ('"fp16"', '"hidden-size": 64, "fp16"', "with dashes and"),
    "no text": ('"fp16"', '7: 3, "fp16"', "no text"),
    "an anchor": ('{"enabled"', '&a {"enabled"', "anchors"),
    "a python object": (
        '"fp16": {',
        '"x": !!python/object/apply:os.system [a], "fp16": {',
        "yml",
    ),
    "no date": ('"fp16"', '"x": 2001-99-99, "fp16"', "no valid yml"),
    "said to be a date": ('"fp16"', '"x": !!timestamp foo, "fp16"', "no valid yml"),
    "unhashable": ('"fp16"', '? [a] : 3, "fp16"', "yml"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_refused(tmp_path: Path, change: str) -> None:
    old, new, reason = CHANGES[change]
    text = gpt_neox_yml(tiny())
    assert text.count(old) == 1
    with pytest.raises(FormatError, match=reason):
        read(tmp_path, text.replace(old, new))


def test_laughs_by_the_billion(tmp_path: Path) -> None:
    lists = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 30)]
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    for bomb in (lists, merges):
        with pytest.raises(FormatError, match="anchors"):
            read(tmp_path, "\n".join(bomb))
    with pytest.raises(FormatError, match="nested"):
        read(tmp_path, "[" * 5000)
    with pytest.raises(FormatError, match="are allowed"):
        read(tmp_path, "#" * (YML_LIMIT_BYTES + 1))
    with pytest.raises(FormatError, match="yml"):
        read(tmp_path, "x: " + "9" * 5000)


SIGNS = "{}[]:,&*!|>%@`?-#'\"\t\n"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, 800),
    new=st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(SIGNS),
    length=st.integers(0, 12),
)
@example(cut=0, new="%YAML 9.9\n---\n", length=0)
@example(cut=0, new="\x00", length=1)
def test_changed_files_are_read_or_refused(tmp_path: Path, cut: int, new: str, length: int) -> None:
    text = gpt_neox_yml(tiny())
    with contextlib.suppress(PythiaFastError):
        read(tmp_path, text[:cut] + new + text[cut + length :])
