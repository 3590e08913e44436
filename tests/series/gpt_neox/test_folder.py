"""GPT-NeoX's own checkpoints: every layout and number of ranks gives back what was cut up."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import (
    FormatError,
    MissingCheckpointError,
    TruncatedFileError,
    UnknownStepError,
    UnsafePickleError,
    WeightsError,
    WriteError,
)
from pythia_fast.model import Model
from pythia_fast.model.weights import Weights
from pythia_fast.series import Checkpoint, GptNeoxSeries, LocalSeries, open_series
from pythia_fast.suite import Architecture
from pythia_fast.testing import (
    make_gpt_neox_series,
    make_series,
    random_state_dict,
    tiny,
    write_gpt_neox,
)

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
TWELVE = tiny(heads=12, width=96, vocab_rows=48)


def bits_of(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (found.dtype, found.shape, found.file.read(found.offset, found.nbytes))
        for name, found in checkpoint.tensors.items()
    }


def bits(state_dict: dict[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    names = {dtype: name for name, dtype in DTYPES.items()}
    return {
        name: (names[t.dtype], tuple(t.shape), t.view(torch.uint8).numpy().tobytes())
        for name, t in state_dict.items()
    }


@pytest.mark.parametrize("config", ["yml", "json"])
@pytest.mark.parametrize("new_names", [False, True])
@pytest.mark.parametrize("layout", ["layers", "ranks"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_what_was_cut_up_comes_together_again(
    tmp_path: Path, ranks: int, layout: str, new_names: bool, config: str
) -> None:
    folder = make_gpt_neox_series(
        tmp_path / "run",
        TWELVE,
        (512, 0),
        model_parallel=ranks,
        layout=layout,
        new_names=new_names,
        config=config,
        seed=5,
    )
    series = open_series(folder)
    assert isinstance(series, GptNeoxSeries)
    assert (series.name, series.steps, series.spec.architecture) == ("run", (0, 512), TWELVE)
    for step in (0, 512):
        assert bits_of(series.open(step)) == bits(random_state_dict(TWELVE, step=step, seed=5))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape_in_any_dtype(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    ranks = data.draw(st.integers(1, 4))
    heads = ranks * data.draw(st.integers(1, 3))
    architecture = tiny(
        layers=data.draw(st.integers(1, 3)),
        heads=heads,
        width=heads * 8 * data.draw(st.integers(1, 2)),
        vocab_rows=ranks * data.draw(st.integers(1, 20)),
    )
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
    folder = make_gpt_neox_series(
        tmp_path_factory.mktemp("run"),
        architecture,
        (7,),
        dtype=dtype,
        model_parallel=ranks,
        layout=data.draw(st.sampled_from(["layers", "ranks"])),
    )
    found = bits_of(open_series(folder).open(7))
    assert found == bits(random_state_dict(architecture, step=7, dtype=dtype))


def test_in_doubles_too(tmp_path: Path) -> None:
    for ranks in (1, 2):
        folder = make_gpt_neox_series(
            tmp_path / f"{ranks}", TWELVE, (0,), dtype=torch.float64, model_parallel=ranks
        )
        found = bits_of(open_series(folder).open(0))
        assert found == bits(random_state_dict(TWELVE, dtype=torch.float64))


def rewrite(folder: Path, change: Callable[[int, int, dict[str, torch.Tensor]], None]) -> None:
    """Let `change` alter what each layer file holds, given its layer and rank."""
    for path in sorted(folder.glob("layer_*")):
        layer, rank = int(path.name[6:8]), int(path.name[15:17])
        content = torch.load(path, weights_only=True)
        change(layer, rank, content)
        torch.save(content, path)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_ranks_that_differ_are_added_up_and_averaged(
    tmp_path: Path, dtype: torch.dtype, ranks: int
) -> None:
    """An own rendering of GPT-NeoX's rules, over parts that have nothing to do with each other."""
    folder = tmp_path / "run" / "global_step1"
    zeros = {name: torch.zeros(shape).to(dtype) for name, shape in TWELVE.shapes().items()}
    write_gpt_neox(folder, zeros, TWELVE, model_parallel=ranks)
    generator = torch.Generator().manual_seed(ranks)
    parts: dict[tuple[int, str], list[torch.Tensor]] = {}

    def fill(layer: int, rank: int, content: dict[str, torch.Tensor]) -> None:
        for key, tensor in content.items():
            if "inv_freq" not in key:
                content[key] = torch.randn(tensor.shape, generator=generator).to(dtype)
                parts.setdefault((layer, key), []).append(content[key])

    rewrite(folder, fill)
    wide = torch.float32 if dtype.itemsize == 2 else torch.float64

    def whole(layer: int, key: str) -> torch.Tensor:
        of_ranks = parts[layer, key]
        if key in ("attention.dense.weight", "mlp.dense_4h_to_h.weight"):
            return torch.cat(of_ranks, dim=1)
        if key in ("attention.dense.bias", "mlp.dense_4h_to_h.bias") or "norm" in key:
            total = of_ranks[0].to(wide)
            for part in of_ranks[1:]:
                total = total + part.to(wide)
            return (total / ranks if "norm" in key else total).to(dtype)
        return torch.cat(of_ranks, dim=0)

    expected = {
        "gpt_neox.embed_in.weight": whole(0, "word_embeddings.weight"),
        "gpt_neox.final_layer_norm.weight": whole(TWELVE.layers + 3, "norm.weight"),
        "gpt_neox.final_layer_norm.bias": whole(TWELVE.layers + 3, "norm.bias"),
        "embed_out.weight": whole(TWELVE.layers + 4, "final_linear.weight"),
    }
    for layer, key in parts:
        if 2 <= layer < TWELVE.layers + 2:
            expected[f"gpt_neox.layers.{layer - 2}.{key}"] = whole(layer, key)
    found = bits_of(open_series(folder.parent).open(1))
    assert found == bits({name: expected[name] for name in TWELVE.shapes()})
    if ranks == 2:  # where rounding once and rounding after every addition are the same
        for layer, key in parts:
            if key.endswith("dense.bias") or key == "norm.weight":
                theirs = sum(parts[layer, key])
                theirs = theirs / 2 if "norm" in key else theirs
                assert torch.equal(whole(layer, key), theirs)


def test_parts_of_one_rank_are_read_where_they_lie(tmp_path: Path) -> None:
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,))
    checkpoint = open_series(folder).open(0)
    names = sorted(path.name for path in (folder / "global_step0").glob("layer_*"))
    assert sorted(file.name for file in checkpoint.files) == names
    assert {Path(t.file.path).parent for t in checkpoint.tensors.values()} == {
        folder / "global_step0"
    }


@pytest.mark.parametrize("in_memory", [True, False])
def test_merged_weights_leave_no_file(tmp_path: Path, monkeypatch, in_memory: bool) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    if not in_memory:
        monkeypatch.setattr("pythia_fast.series.gpt_neox.merging.IN_MEMORY_BYTES", 0)
        monkeypatch.setattr("tempfile.tempdir", None)
    for ranks, layout in ((2, "layers"), (4, "ranks")):
        make_gpt_neox_series(tmp_path / layout, TWELVE, (0,), model_parallel=ranks, layout=layout)
    one, other = (open_series(tmp_path / layout).open(0) for layout in ("layers", "ranks"))
    assert bits_of(one) == bits_of(other) == bits(random_state_dict(TWELVE))
    assert one.weights_sha256 == other.weights_sha256  # however many ranks there were
    assert not list((tmp_path / "scratch").iterdir())


def test_no_room_to_merge(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pythia_fast.series.gpt_neox.merging.IN_MEMORY_BYTES", 0)
    real = os.statvfs

    def full(path: str):
        found = real(path)
        return type("Full", (), {"f_bavail": 0, "f_frsize": found.f_frsize})()

    monkeypatch.setattr("os.statvfs", full)
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,), model_parallel=2)
    with pytest.raises(WriteError, match="TMPDIR"):
        open_series(folder).open(0)


def test_pieces_smaller_than_a_row_and_larger_than_a_tensor(tmp_path: Path, monkeypatch) -> None:
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,), model_parallel=2)
    for piece_bytes in (1, 1000, 1 << 30):
        monkeypatch.setattr("pythia_fast.series.parts.PIECE_BYTES", max(piece_bytes, 64))
        monkeypatch.setattr("pythia_fast.series.gpt_neox.merging.PIECE_BYTES", piece_bytes)
        assert bits_of(open_series(folder).open(0)) == bits(random_state_dict(TWELVE))


def test_a_model_computes_the_same_from_either_layout(tmp_path: Path) -> None:
    ours = LocalSeries(make_series(tmp_path / "ours", TWELVE, (3,)))
    theirs = open_series(make_gpt_neox_series(tmp_path / "theirs", TWELVE, (3,), model_parallel=2))
    ids = np.arange(40).reshape(2, 20)
    results = []
    for series in (ours, theirs):
        weights = Weights(series.spec.architecture)
        weights.load(series.open(3))
        model = Model(weights, series.spec)
        results.append(model.nll(ids))
    assert torch.equal(*results)


def test_files_of_training_beside_the_weights_do_not_matter(tmp_path: Path) -> None:
    """With stages of a pipeline there are more of them than ranks that share a weight."""
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,), model_parallel=2)
    step = folder / "global_step0"
    for rank in range(2, 8):
        shutil.copy(
            step / "mp_rank_00_model_states.pt", step / f"mp_rank_{rank:02}_model_states.pt"
        )
    (step / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"anything")
    (step / "layer_01-model_00-model_states.pt").write_bytes(b"")
    torch.save({}, step / "layer_01-model_00-model_states.pt")
    torch.save({}, step / "layer_01-model_01-model_states.pt")
    (folder / "latest").write_text("global_step0")
    assert bits_of(open_series(folder).open(0)) == bits(random_state_dict(TWELVE))


def test_plain_values_beside_tensors_are_passed_over(tmp_path: Path) -> None:
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,))

    def add(_layer: int, _rank: int, content: dict) -> None:
        content |= {"version": 3, "names": ["a", {"b": (1.5, None)}], "scale": 2.0, "state": {}}

    rewrite(folder / "global_step0", add)
    assert bits_of(open_series(folder).open(0)) == bits(random_state_dict(TWELVE))


def test_survey_and_identity(tmp_path: Path) -> None:
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0, 1), model_parallel=2)
    series = open_series(folder)
    files = list((folder / "global_step0").glob("layer_*"))
    (folder / "global_step1" / "layer_03-model_01-model_states.pt").unlink()
    survey = series.survey((0, 1))
    assert survey[0].nbytes == sum(path.stat().st_size for path in files)
    assert {file.path for file in survey[0].files} == {path.name for path in files}
    assert isinstance(survey[1].error, MissingCheckpointError)
    before = series.identity(0)
    files[0].touch()
    assert series.identity(0) != before
    with pytest.raises(UnknownStepError):
        series.open(2)


# What can be wrong


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """Two ranks of three layers."""
    architecture = tiny(layers=3)
    make_gpt_neox_series(tmp_path / "run", architecture, (0,), model_parallel=2, config="json")
    return tmp_path / "run" / "global_step0"


def refused(step: Path, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        open_series(step.parent).open(0)


def test_a_survey_looks_into_the_files_without_merging_them(
    step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pythia_fast.series.gpt_neox.folder.assemble", None)
    series = GptNeoxSeries(step.parent)
    number = int(step.name.removeprefix("global_step"))
    assert series.survey([number])[number].error is None
    victim = max(step.glob("layer_*.pt"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    error = series.survey([number])[number].error
    assert isinstance(error, FormatError)
    assert error.path == victim


def test_missing_files_are_named(step: Path) -> None:
    (step / "layer_03-model_01-model_states.pt").unlink()
    refused(step, MissingCheckpointError, r"lacks 1 of the 12 .*layer_03-model_01-model_states\.pt")
    for path in step.glob("layer_03-*"):
        path.unlink()
    refused(step, MissingCheckpointError, "lacks all files of layer 3, .* of 3 layers has, .*_03-")
    for path in step.glob("*.pt"):
        path.unlink()
    refused(step, MissingCheckpointError, "no weights of GPT-NeoX")


def test_a_rank_that_is_missing_altogether(step: Path) -> None:
    for path in step.glob("layer_*-model_01-*"):
        path.unlink()
    refused(step, MissingCheckpointError, "lacks all files of rank 1: .* cut into 2 .*_00-model_01")


@pytest.mark.parametrize("config", ["yml", "json"])
@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize(
    ("layout", "gone", "what"),
    [
        ("layers", "layer_00-*", "layer 0, .*layer_00-model_00-model_states"),
        ("layers", "layer_03-*", "layer 3, .*layer_03-model_00-model_states"),
        ("layers", "layer_06-*", "layer 6, "),
        ("layers", "*-model_0[12]-*", "rank 1, 2: .* cut into 3 .* of 1 .*layer_00-model_01-"),
        ("ranks", "mp_rank_02_*", "rank 2: .* of 2 are there.*mp_rank_02_model_states"),
    ],
)
def test_files_that_are_missing_altogether_are_known_before_anything_is_read(
    tmp_path: Path, config: str, broken: int, layout: str, gone: str, what: str
) -> None:
    """Whichever step it is: the others can be read."""
    folder = make_gpt_neox_series(
        tmp_path / "run", TWELVE, (0, 1), model_parallel=3, layout=layout, config=config
    )
    for path in (folder / f"global_step{broken}").glob(gone):
        path.unlink()
    series = open_series(folder)
    assert series.spec.architecture == TWELVE
    survey = series.survey((0, 1))
    assert survey[1 - broken].error is None
    with pytest.raises(MissingCheckpointError, match=f"lacks all files of {what}"):
        raise survey[broken].error or AssertionError
    with pytest.raises(MissingCheckpointError, match=f"lacks all files of {what}"):
        series.open(broken)
    assert bits_of(series.open(1 - broken)) == bits(random_state_dict(TWELVE, step=1 - broken))


def test_a_rank_in_between_that_is_missing(step: Path) -> None:
    for path in step.glob("layer_*-model_01-*"):
        path.rename(path.with_name(path.name.replace("model_01", "model_02")))
    refused(step, MissingCheckpointError, "lacks 6 of the 18 files of its 3 .*model_01")


def test_stray_layers(step: Path) -> None:
    for rank in ("00", "01"):
        shutil.copy(
            step / f"layer_02-model_{rank}-model_states.pt",
            step / f"layer_08-model_{rank}-model_states.pt",
        )
    refused(step, WeightsError, "stray 8")


def test_half_written(step: Path) -> None:
    (step / "layer_03-model_01-model_states.pt.incomplete").touch()
    refused(step, MissingCheckpointError, "half written")


def test_training_states_alone(step: Path) -> None:
    for path in step.glob("layer_*"):
        path.unlink()
    refused(step, WeightsError, "no weights under 'module'")


def test_a_git_lfs_pointer(step: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (step / "layer_00-model_00-model_states.pt").write_text(pointer)
    refused(step, MissingCheckpointError, "git lfs pull")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("attention.dense.bias"), "of 1 ranks, not 2"),
        (
            lambda c: c.update({"attention.dense.bias": torch.zeros(63)}),
            "differs from rank to rank",
        ),
        (
            lambda c: c.update({"attention.dense.bias": torch.zeros(64)}),
            "differs from rank to rank",
        ),
        (lambda c: c.update(extra=torch.zeros(1)), "'extra' in layer 4"),
        (lambda c: c.update({"attention.dense.bias": 3}), "of 1 ranks, not 2"),
        (
            lambda c: c.update({"mlp.linear1.bias": c["mlp.dense_h_to_4h.bias"]}),
            "twice .*dense_h_to_4h",
        ),
    ],
)
def test_a_part_that_does_not_fit(step: Path, change, reason: str) -> None:
    def alter(layer: int, rank: int, content: dict) -> None:
        if (layer, rank) == (4, 1):
            change(content)

    rewrite(step, alter)
    refused(step, WeightsError, reason)


def test_parts_that_are_all_of_another_shape(step: Path) -> None:
    def alter(layer: int, _rank: int, content: dict) -> None:
        if layer == 2:
            content["attention.dense.weight"] = torch.zeros(64, 31)
            content["input_layernorm.bias"] = torch.zeros(64, dtype=torch.int32)
            content["mlp.dense_4h_to_h.weight"] = torch.zeros(64)

    rewrite(step, alter)
    refused(
        step,
        WeightsError,
        r"input_layernorm.bias is I32.*\[64, 31\] in each of 2 ranks, \[64, 62\] together, not "
        r"\[64, 64\].*dense_4h_to_h",
    )


def test_a_layer_in_anothers_place(step: Path) -> None:
    (step / "layer_00-model_00-model_states.pt").rename(step / "x")
    (step / "layer_07-model_00-model_states.pt").rename(step / "layer_00-model_00-model_states.pt")
    (step / "x").rename(step / "layer_07-model_00-model_states.pt")
    refused(step, WeightsError, "'final_linear.weight' in layer 0")


def test_a_config_of_more_layers(step: Path) -> None:
    config = step / "config.json"
    config.write_text(config.read_text().replace('layers": 3', 'layers": 9999'))
    words = "layer 5, 8, 9, 10 and 9,992 more, .* 9999 layers has, as its config"
    refused(step, MissingCheckpointError, words)


def test_truncated_and_hostile_files(step: Path, tmp_path: Path) -> None:
    path = step / "layer_02-model_01-model_states.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused(step, TruncatedFileError, "cut")
    path.write_bytes(whole)
    witness = tmp_path / "it-ran"

    class Command:
        def __reduce__(self):
            return os.system, (f"touch {witness}",)

    torch.save({"a": Command()}, path)
    refused(step, UnsafePickleError, "posix.system")
    assert not witness.exists()
    torch.save([torch.zeros(2)], path)
    refused(step, FormatError, "no dictionary")


@pytest.mark.parametrize(
    ("module", "kind", "reason"),
    [
        ({"transformer.2.weight": torch.zeros(1)}, WeightsError, "sequential.<layer>.<weight>"),
        ([torch.zeros(1)], FormatError, "'module' is no dictionary"),
        (None, WeightsError, "no weights under 'module'"),
        (
            {f"sequential.{n}.word_embeddings.weight": torch.zeros(1, 1) for n in ("0", "00")},
            WeightsError,
            "sequential.<layer>.<weight>",
        ),
        ({}, WeightsError, "of 0 ranks|fewer tensors"),
    ],
)
def test_modules_that_are_none(tmp_path: Path, module, kind, reason: str) -> None:
    folder = tmp_path / "run" / "global_step0"
    write_gpt_neox(folder, random_state_dict(TWELVE), TWELVE, layout="ranks", config="json")
    torch.save({"module": module}, folder / "mp_rank_00_model_states.pt")
    refused(folder, kind, reason)


def test_both_layouts_of_steps_side_by_side(tmp_path: Path, tiny: Architecture) -> None:
    make_gpt_neox_series(tmp_path, TWELVE, (0,))
    make_series(tmp_path, tiny, (1,))
    with pytest.raises(FormatError, match="side by side"):
        open_series(tmp_path)


def test_the_hubs_reader_alone_says_who_reads_them(tmp_path: Path) -> None:
    make_gpt_neox_series(tmp_path, TWELVE, (0,))
    with pytest.raises(FormatError, match="open_series"):
        LocalSeries(tmp_path)


def test_a_step_of_another_model(tmp_path: Path) -> None:
    make_gpt_neox_series(tmp_path, TWELVE, (0,))
    make_gpt_neox_series(tmp_path, tiny(layers=1), (1,))
    series = open_series(tmp_path)
    with pytest.raises(
        WeightsError, match=r"another model than the rest .*: layers 1, not 2, width"
    ):
        series.open(1)


def test_without_any_config(tmp_path: Path) -> None:
    folder = make_gpt_neox_series(tmp_path / "run", TWELVE, (0,), config=None)
    with pytest.raises(MissingCheckpointError, match="yml of GPT-NeoX"):
        open_series(folder)
