"""Checkpoints from folders: whole ones equal transformers' own, broken ones say what is missing."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_fast.errors import (
    FormatError,
    MissingCheckpointError,
    TruncatedFileError,
    UnknownStepError,
    WeightsError,
)
from pythia_fast.series import Checkpoint, LocalSeries, write_checkpoint
from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series, random_state_dict

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def tensors_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights, read by the ranges."""
    return {
        name: torch.frombuffer(
            bytearray(found.file.read(found.offset, found.nbytes)), dtype=DTYPES[found.dtype]
        ).reshape(found.shape)
        for name, found in checkpoint.tensors.items()
    }


def by_our_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers 5 has another name in memory for what it calls embed_out on disk."""
    return {n.replace("lm_head", "embed_out"): tensor for n, tensor in state_dict.items()}


def assert_holds(checkpoint: Checkpoint, state_dict: dict[str, torch.Tensor]) -> None:
    found = tensors_of(checkpoint)
    assert list(found) == list(checkpoint.architecture.shapes())
    assert found.keys() == state_dict.keys()
    for name, tensor in state_dict.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("shard_bytes", [None, 50_000])
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_every_step_holds_what_was_written(
    tmp_path: Path, tiny: Architecture, dtype: torch.dtype, shard_bytes: int | None
) -> None:
    steps = (0, 1, 512, 1000)
    series = LocalSeries(
        make_series(tmp_path / "s", tiny, steps, dtype=dtype, seed=3, shard_bytes=shard_bytes)
    )
    for step in steps:
        checkpoint = series.open(step)
        assert (checkpoint.step, checkpoint.commit) == (step, None)
        assert checkpoint.architecture == tiny
        assert_holds(checkpoint, random_state_dict(tiny, step=step, seed=3, dtype=dtype))


def test_the_series(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "mine", tiny, (10, 9, 1000, 0))
    for name in ("step07", "step", "step1.5", "steps", "notes"):
        (folder / name).mkdir()
    (folder / "step5").write_text("a file")
    series = LocalSeries(str(folder))
    assert series.steps == (0, 9, 10, 1000)
    assert series.name == series.spec.name == "mine"
    assert series.spec.repo is None
    assert series.source == str(folder)
    with pytest.raises(UnknownStepError, match="step 8"):
        series.open(8)
    with pytest.raises(UnknownStepError, match="step 8"):
        series.identity(8)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["10GB", "50KB"])
def test_files_of_transformers_itself(tmp_path: Path, safe: bool, shard: str) -> None:
    config = GPTNeoXConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        vocab_size=99,
        max_position_embeddings=64,
    )
    model = GPTNeoXForCausalLM(config).half()
    folder = tmp_path / "s" / "step4"
    if safe:
        model.save_pretrained(folder, max_shard_size=shard)
    else:
        folder.mkdir(parents=True)
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert_holds(LocalSeries(tmp_path / "s").open(4), by_our_names(model.state_dict()))


@pytest.mark.parametrize("sharded", [False, True])
def test_buffers_of_older_files_are_left_out(
    tmp_path: Path, tiny: Architecture, sharded: bool
) -> None:
    """As transformers wrote them when Pythia was released, with the mask as bool and as bytes."""
    weights = random_state_dict(tiny)
    full = dict(weights)
    for layer in range(tiny.layers):
        attention = f"gpt_neox.layers.{layer}.attention"
        mask = torch.ones(1, 1, 128, 128).tril()
        full[f"{attention}.bias"] = mask.bool() if layer else mask.byte()
        full[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        full[f"{attention}.rotary_emb.inv_freq"] = torch.ones(2)
    for format in ("torch", "safetensors"):
        folder = tmp_path / format / "step0"
        limit = 40_000 if sharded else None
        write_checkpoint(folder, full, tiny, format=format, max_shard_bytes=limit)
        assert_holds(LocalSeries(tmp_path / format).open(0), weights)


def test_pytorch_model_bin_wins_over_safetensors(tmp_path: Path, tiny: Architecture) -> None:
    """Some of the safetensors on the Hub were converted from another step."""
    right, wrong = random_state_dict(tiny, step=1), random_state_dict(tiny, step=2)
    write_checkpoint(tmp_path / "step1", right, tiny, format="torch")
    save_file(wrong, tmp_path / "step1" / "model.safetensors")
    assert_holds(LocalSeries(tmp_path).open(1), right)


def test_weights_sha256(tmp_path: Path, tiny: Architecture) -> None:
    one = LocalSeries(make_series(tmp_path / "one", tiny, (0,))).open(0)
    raw = (tmp_path / "one" / "step0" / "model.safetensors").read_bytes()
    assert one.weights_sha256 == hashlib.sha256(raw).hexdigest()
    many = LocalSeries(make_series(tmp_path / "many", tiny, (0,), shard_bytes=50_000)).open(0)
    names = sorted(path.name for path in (tmp_path / "many/step0").glob("*.safetensors"))
    assert [file.name for file in many.files] == names
    digests = [
        hashlib.sha256((tmp_path / "many/step0" / n).read_bytes()).hexdigest() for n in names
    ]
    lines = "".join(f"{n} {d}\n" for n, d in zip(names, digests, strict=True))
    assert many.weights_sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_what_was_opened_is_what_is_hashed_and_read(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1), formats=("torch",))
    checkpoint = LocalSeries(folder).open(0)
    raw = (folder / "step0/pytorch_model.bin").read_bytes()
    (folder / "step1/pytorch_model.bin").replace(folder / "step0/pytorch_model.bin")
    assert checkpoint.weights_sha256 == hashlib.sha256(raw).hexdigest()
    assert_holds(checkpoint, random_state_dict(tiny, step=0))


def test_a_copy_with_its_times_and_a_linked_file_are_the_same(
    tmp_path: Path, tiny: Architecture
) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    before = LocalSeries(folder).identity(0)
    (tmp_path / "backup").hardlink_to(next((folder / "step0").glob("*model*")))
    assert LocalSeries(folder).identity(0) == before
    shutil.copytree(folder, tmp_path / "copy")
    assert LocalSeries(tmp_path / "copy").identity(0) == before


def test_identity_changes_with_the_files(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    series = LocalSeries(folder)
    before = series.identity(0)
    assert before == series.identity(0) != series.identity(1)
    (folder / "step0/model.safetensors").touch()
    assert series.identity(0) != before
    shutil.rmtree(folder / "step0")
    with pytest.raises(MissingCheckpointError, match="gone"):
        series.identity(0)


def test_one_config_for_all_steps(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    (folder / "step0/config.json").replace(folder / "config.json")
    (folder / "step1/config.json").unlink()
    assert LocalSeries(folder).open(1).architecture == tiny
    (folder / "config.json").unlink()
    with pytest.raises(MissingCheckpointError, match=r"no config\.json"):
        LocalSeries(folder)


def test_a_step_of_another_model(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    config = {**tiny.to_config(), "use_parallel_residual": False}
    (folder / "step1/config.json").write_text(json.dumps(config))
    series = LocalSeries(folder)
    series.open(0)
    with pytest.raises(WeightsError, match=r"series: parallel_residual False, not True$"):
        series.open(1)


# Half-written steps


def test_what_should_be_the_folder_of_a_step(
    tmp_path: Path, tiny: Architecture, caplog: pytest.LogCaptureFixture
) -> None:
    """A link that leads nowhere is a step that is missing; what else is no step is said, once."""
    folder = make_series(tmp_path / "s", tiny, (0, 2))
    make_series(tmp_path / "elsewhere", tiny, (3,))
    (folder / "step1").symlink_to(tmp_path / "nowhere")
    (folder / "step3").symlink_to(tmp_path / "elsewhere/step3")
    (folder / "step4").write_text("no folder")
    (folder / "step05").mkdir()
    (folder / "steps").mkdir()
    for _ in range(2):
        series = LocalSeries(folder)
        assert series.steps == (0, 1, 2, 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'step05'} is left out: the folder of a step is named as step1000 is",
        f"{folder / 'step4'} is left out: it is no folder with a checkpoint in it",
    ]
    survey = series.survey(series.steps)
    assert [step for step in series.steps if survey[step].error is None] == [0, 2, 3]
    assert isinstance(survey[1].error, MissingCheckpointError)
    for ask in (series.open, series.identity):
        with pytest.raises(MissingCheckpointError, match="step1 is a link that leads nowhere"):
            ask(1)


def test_folders_that_are_no_series(tmp_path: Path, tiny: Architecture) -> None:
    with pytest.raises(MissingCheckpointError, match="no folder"):
        LocalSeries(tmp_path / "nowhere")
    with pytest.raises(MissingCheckpointError, match="no checkpoints"):
        LocalSeries(tmp_path)
    write_checkpoint(tmp_path / "single", random_state_dict(tiny), tiny)
    with pytest.raises(MissingCheckpointError, match="one checkpoint, not a series"):
        LocalSeries(tmp_path / "single")
    (tmp_path / "neox/global_step1000").mkdir(parents=True)
    with pytest.raises(FormatError, match="GPT-NeoX's own layout"):
        LocalSeries(tmp_path / "neox")


@pytest.fixture
def broken(tmp_path: Path, tiny: Architecture) -> Path:
    """A series of two steps in shards; the tests break step 1."""
    return make_series(tmp_path / "s", tiny, (0, 1), shard_bytes=50_000)


def index_of(folder: Path) -> Path:
    return next((folder / "step1").glob("*.index.json"))


def test_half_written_steps(broken: Path) -> None:
    shards = sorted((broken / "step1").glob("*.bin"))
    series = LocalSeries(broken)
    series.open(1)
    (broken / "step1/pytorch_model-00002-of-00099.bin.incomplete").touch()
    with pytest.raises(MissingCheckpointError, match="half written"):
        series.open(1)
    (broken / "step1/pytorch_model-00002-of-00099.bin.incomplete").unlink()
    shards[1].rename(broken / f"step1/.{shards[1].name}.0123.tmp")
    shards[2].unlink()
    with pytest.raises(MissingCheckpointError) as caught:
        series.open(1)
    for part in (shards[1].name, shards[2].name, "2 of the", ".0123.tmp"):
        assert part in str(caught.value)
    index_of(broken).unlink()
    with pytest.raises(MissingCheckpointError, match="holds no weights"):
        series.open(1)
    shutil.rmtree(broken / "step1")
    with pytest.raises(MissingCheckpointError, match="gone"):
        series.open(1)
    series.open(0)


def test_an_empty_step(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (4,))
    (folder / "step1").mkdir()
    series = LocalSeries(folder)
    assert series.steps == (1, 4)
    with pytest.raises(MissingCheckpointError, match="step1 holds no weights"):
        series.open(1)


def test_a_git_lfs_pointer(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    for path in (folder / "step0/model.safetensors", folder / "step1/pytorch_model.bin"):
        path.write_text(pointer)
    for step in (0, 1):
        with pytest.raises(MissingCheckpointError, match="git lfs pull"):
            LocalSeries(folder).open(step)


def test_truncated_weights(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0, 1))
    for path in (folder / "step0/model.safetensors", folder / "step1/pytorch_model.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    for step in (0, 1):
        with pytest.raises(TruncatedFileError):
            LocalSeries(folder).open(step)
        [revision] = LocalSeries(folder).survey([step]).values()
        assert isinstance(revision.error, TruncatedFileError)
        assert revision.nbytes, "what is there is known all the same"


@pytest.mark.parametrize(
    "shard",
    ["../s.bin", "/etc/passwd", "sub/x.bin", "..", ".", "", "a\\b.bin", "x\0.bin", 3, None, ["a"]],
)
def test_an_index_that_names_other_places(broken: Path, shard: object) -> None:
    index = index_of(broken)
    content = json.loads(index.read_bytes())
    content["weight_map"]["embed_out.weight"] = shard
    index.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="no file beside it"):
        LocalSeries(broken).open(1)


def test_an_index_that_names_unknown_files(broken: Path) -> None:
    index = index_of(broken)
    content = json.loads(index.read_bytes())
    for shard, error, reason in (
        ("unknown.bin", MissingCheckpointError, r"unknown\.bin"),
        ("config.json", FormatError, r"no \*\.bin file"),
    ):
        content["weight_map"]["embed_out.weight"] = shard
        index.write_text(json.dumps(content))
        with pytest.raises(error, match=reason):
            LocalSeries(broken).open(1)


def test_an_index_that_does_not_fit_its_shards(broken: Path) -> None:
    index = index_of(broken)
    good = json.loads(index.read_bytes())
    shards = sorted(set(good["weight_map"].values()))
    name = "gpt_neox.layers.0.input_layernorm.bias"
    other = next(shard for shard in shards if shard != good["weight_map"][name])
    changes: list[tuple[dict[str, str], str]] = [
        ({**good["weight_map"], name: other}, "does not put 'gpt_neox.layers.0.input"),
        (
            {n: s for n, s in good["weight_map"].items() if n != name},
            "does not put 'gpt_neox.layers.0.input",
        ),
        ({**good["weight_map"], "gpt_neox.ghost": other}, "is not in"),
    ]
    for weight_map, reason in changes:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(FormatError, match=reason):
            LocalSeries(broken).open(1)
    for content in ("", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "[" * 100_000):
        index.write_text(content)
        with pytest.raises(FormatError):
            LocalSeries(broken).open(1)
    index.write_text('{"weight_map": {"a": "x.bin", "a": "y.bin"}}')
    with pytest.raises(FormatError, match="twice"):
        LocalSeries(broken).open(1)
    with index.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(FormatError, match="are allowed"):
        LocalSeries(broken).open(1)


def test_a_tensor_in_two_shards(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0,), shard_bytes=50_000)
    first, second, *_ = sorted((folder / "step0").glob("*.safetensors"))
    both = {**load_file(second), **dict(list(load_file(first).items())[:1])}
    save_file(both, second)
    with pytest.raises(FormatError, match="there twice"):
        LocalSeries(folder).open(0)


# Weights that are not the architecture's


def test_weights_of_another_shape(tmp_path: Path, tiny: Architecture) -> None:
    weights = random_state_dict(tiny)
    cases: dict[str, dict[str, torch.Tensor]] = {
        r"missing: embed_out\.weight": {
            n: t for n, t in weights.items() if n != "embed_out.weight"
        },
        r"unknown: decoder\.weight": {**weights, "decoder.weight": torch.ones(2)},
        r"embed_out\.weight is \[3, 2\], not \[160, 64\]": {
            **weights,
            "embed_out.weight": torch.ones(3, 2),
        },
        "none of F16, BF16, F32, F64: embed_out.weight is I64": {
            **weights,
            "embed_out.weight": weights["embed_out.weight"].long(),
        },
        "missing: .* and 21 more": dict(list(weights.items())[:3]),
    }
    for number, (reason, state_dict) in enumerate(cases.items()):
        write_checkpoint(tmp_path / f"step{number}", state_dict, tiny)
        with pytest.raises(WeightsError, match=reason):
            LocalSeries(tmp_path).open(number)


def test_a_config_that_lies(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0,))
    path = folder / "step0/config.json"
    path.write_text(json.dumps({**tiny.to_config(), "num_hidden_layers": 9_999}))
    with pytest.raises(WeightsError, match="describes 9999 layers"):
        LocalSeries(folder).open(0)
    path.write_text(json.dumps({**tiny.to_config(), "num_hidden_layers": 10**12}))
    with pytest.raises(FormatError, match="layers are 1 to"):
        LocalSeries(folder)
    for content in (b"", b"{", b"[]", b"[" * 100_000, b"\xff", b"{}", b'{"model_type": "llama"}'):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            LocalSeries(folder)


def test_every_value_of_a_config_may_be_of_any_kind(tmp_path: Path, tiny: Architecture) -> None:
    folder = make_series(tmp_path / "s", tiny, (0,))
    path = folder / "step0/config.json"
    kinds = ("null", '"x"', "-1", "0", "1e308", "1e999", "NaN", "[]", "{}", "[1]", "true", "9" * 30)
    for name in (*tiny.to_config(), "rope_parameters", "rope_scaling"):
        for kind in kinds:
            config = {**tiny.to_config(), name: "PLACE"}
            path.write_text(json.dumps(config).replace('"PLACE"', kind))
            with contextlib.suppress(FormatError):
                LocalSeries(folder)


def test_both_names_of_the_last_product(tmp_path: Path, tiny: Architecture) -> None:
    weights = random_state_dict(tiny)
    both = {**weights, "lm_head.weight": weights["embed_out.weight"]}
    write_checkpoint(tmp_path / "step0", both, tiny)
    with pytest.raises(FormatError, match=r"'embed_out\.weight' is there twice"):
        LocalSeries(tmp_path).open(0)


def test_nan_weights_are_opened(tmp_path: Path, tiny: Architecture) -> None:
    """They are counted when they are loaded; a checkpoint that diverged is still a checkpoint."""
    weights = random_state_dict(tiny)
    weights["embed_out.weight"][:] = float("nan")
    write_checkpoint(tmp_path / "step0", weights, tiny)
    assert len(LocalSeries(tmp_path).open(0).tensors) == len(weights)
