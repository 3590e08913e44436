import json

import pytest
import torch
from safetensors import safe_open
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_fast.errors import ArgumentError, FormatError
from pythia_fast.suite import Architecture, spec

SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
SMALL = Architecture(
    layers=2,
    width=96,
    heads=3,
    vocab_rows=512,
    intermediate=384,
    rotary_dims=8,
    parallel_residual=False,
    activation="gelu_tanh",
    max_positions=256,
)


@pytest.mark.parametrize("size", SIZES)
def test_shapes_are_those_of_transformers(size):
    architecture = spec(size).architecture
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**architecture.to_config()))
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    expected["embed_out.weight"] = expected.pop("lm_head.weight")  # its name in files: see below
    assert architecture.shapes() == expected
    assert architecture.parameters == model.num_parameters()


def test_names_are_those_in_the_files_of_transformers(tmp_path):
    GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL.to_config())).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert SMALL.shapes() == saved


@pytest.mark.parametrize("architecture", [SMALL, *(spec(size).architecture for size in SIZES)])
def test_a_config_written_is_read_back(architecture):
    config = json.loads(json.dumps(architecture.to_config()))
    assert Architecture.from_config(config, "config.json") == architecture


def test_what_transformers_writes_is_read(tmp_path):
    GPTNeoXConfig(**SMALL.to_config()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    assert Architecture.from_config(json.loads(path.read_bytes()), path) == SMALL


def test_transformers_understands_the_config_as_we_do():
    config = GPTNeoXConfig(**SMALL.to_config())
    assert int(SMALL.head_dim * config.rope_parameters["partial_rotary_factor"]) == 8
    assert config.rope_parameters["rope_theta"] == 10_000
    assert config.hidden_act == "gelu_new"
    assert not config.use_parallel_residual
    assert not config.tie_word_embeddings


def hub_config(**changed: object) -> dict[str, object]:
    """A config.json as the Hub has them, with the keys of 2023."""
    return {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 6,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": 50304,
    } | changed


def test_a_config_of_the_hub():
    assert Architecture.from_config(hub_config(), "config.json") == spec("70m").architecture


def test_without_use_parallel_residual_the_default_holds():
    config = hub_config()
    del config["use_parallel_residual"]
    assert Architecture.from_config(config, "config.json").parallel_residual
    assert GPTNeoXConfig(**config).use_parallel_residual


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "llama"}, "'llama', not 'gpt_neox'"),
        ({"tie_word_embeddings": True}, "tied"),
        ({"attention_bias": False}, "without biases"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "dynamic"),
        ({"hidden_size": 500}, "no multiple"),
        ({"num_attention_heads": 0}, "zero"),
        ({"num_hidden_layers": 0}, "layers are 1 to"),
        ({"num_hidden_layers": 10**12}, "layers are 1 to"),
        ({"vocab_size": 10**12}, "other sizes 1 to"),
        ({"hidden_act": []}, "unhashable"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps lies between"),
        ({"rotary_emb_base": 0}, "rotary_base is at least 1"),
        ({"rope_scaling": 3}, "no attribute"),
        ({"vocab_size": None}, "int"),
        ({"rotary_pct": 1.5}, "at most the head's 64"),
        ({"rotary_pct": 0.05}, "even"),
    ],
)
def test_what_is_not_implemented_is_refused(changed, message):
    with pytest.raises(FormatError, match=message) as caught:
        Architecture.from_config(hub_config(**changed), "folder/config.json")
    assert "folder/config.json" in str(caught.value)


def test_a_config_without_a_size_is_refused():
    config = hub_config()
    del config["hidden_size"]
    with pytest.raises(FormatError, match="'hidden_size' is missing"):
        Architecture.from_config(config, "config.json")


@pytest.mark.parametrize(
    "changed",
    [{"layers": 0}, {"width": 97}, {"rotary_dims": 7}, {"rotary_dims": 34}, {"rotary_dims": -2}],
)
def test_impossible_numbers(changed):
    numbers = {
        "layers": 2,
        "width": 96,
        "heads": 3,
        "vocab_rows": 512,
        "intermediate": 384,
        "rotary_dims": 8,
    }
    with pytest.raises(ArgumentError):
        Architecture(**(numbers | changed))
