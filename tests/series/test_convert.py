"""Copies of checkpoints from every source: equal, resumed, and never half there."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast import identity
from pythia_fast.errors import (
    ArgumentError,
    ConversionError,
    FormatError,
    MissingCheckpointError,
    ReadError,
    RunMismatchError,
    UnknownStepError,
    WorkInterruptedError,
    WriteError,
)
from pythia_fast.progress import Bar
from pythia_fast.publish import partial_of
from pythia_fast.series import convert as module
from pythia_fast.series import open_series
from pythia_fast.series.convert import RECORD, convert
from pythia_fast.series.hub import HubSeries
from pythia_fast.series.local import LocalSeries
from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import (
    HubServer,
    make_gpt_neox_series,
    make_series,
    random_state_dict,
    tiny,
)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """What transformers makes of a folder, in the dtype that it says itself."""
    state = GPTNeoXForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    return {name.replace("lm_head", "embed_out"): tensor for name, tensor in state.items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shard", [None, 60_000])
@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_transformers_loads_the_same_weights(
    tmp_path: Path, tiny: Architecture, format: Any, shard: int | None, dtype: torch.dtype
) -> None:
    source = make_series(tmp_path / "source", tiny, (0, 3), dtype=dtype)
    out = tmp_path / "out"
    done = convert(source, out, format=format, max_shard_size=shard)
    assert (done.out, done.steps, done.written) == (out, (0, 3), (0, 3))
    for step in (0, 3):
        expected = random_state_dict(tiny, step=step, dtype=dtype)
        assert same(loaded(out / f"step{step}"), expected)
        files = sorted(path.name for path in (out / f"step{step}").iterdir())
        suffix = ".bin" if format == "torch" else ".safetensors"
        weights = [name for name in files if name.endswith(suffix)]
        assert len(weights) == 1 if shard is None else len(weights) > 2
        assert any(name.endswith(".index.json") for name in files) == (shard is not None)
        assert open_series(out).open(step).architecture == tiny
    assert sorted(path.name for path in out.iterdir()) == ["step0", "step3"]


@pytest.mark.parametrize("layout", ["layers", "ranks"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_from_gpt_neox(tmp_path: Path, layout: Any, ranks: int) -> None:
    architecture = tiny(vocab_rows=64)
    source = make_gpt_neox_series(
        tmp_path / "source", architecture, (512,), model_parallel=ranks, layout=layout
    )
    convert(source, tmp_path / "out")
    folder = tmp_path / "out" / "step512"
    expected = random_state_dict(architecture, step=512)
    assert same(loaded(folder), expected)
    assert same(load_file(folder / "model.safetensors"), expected)


def test_from_the_hub(tmp_path: Path, tiny: Architecture, monkeypatch) -> None:
    source = make_series(tmp_path / "source", tiny, (0, 1))
    repo = "EleutherAI/pythia-14m"
    with HubServer({repo: {f"step{n}": source / f"step{n}" for n in (0, 1)}}) as hub:

        def here(model: str, *, cache_dir: Path, disk_budget: None) -> HubSeries:
            return HubSeries(spec(model), cache_dir, endpoint=hub.url)

        monkeypatch.setattr(module, "open_series", here)
        out = tmp_path / "out"
        done = convert("14m", out, (0, 1), cache_dir=tmp_path / "cache")
        assert done.written == (0, 1)
        record = json.loads((out / "step1" / RECORD).read_text())
        assert record["commit"] == record["identity"]
        assert len(record["commit"]) == 40
        before = len(hub.requests)
        assert convert("14m", out, (0, 1), cache_dir=tmp_path / "cache").written == ()
        assert not [r for r in hub.requests[before:] if "resolve" in r.path]
        with pytest.raises(ConversionError, match=r"1 step cannot be had \(2\).*step2") as caught:
            convert("14m", out, (0, 1, 2), cache_dir=tmp_path / "cache")
        assert isinstance(caught.value.__cause__, MissingCheckpointError)
        done = convert("14m", out, (0, 1, 2), cache_dir=tmp_path / "cache", on_error="skip")
        assert done.steps == (0, 1)
        (failure,) = done.failures
        assert (failure.step, failure.error) == (2, "MissingCheckpointError")
    for step in (0, 1):
        assert same(loaded(out / f"step{step}"), random_state_dict(tiny, step=step))


def test_what_is_downloaded_is_told_meanwhile(tmp_path: Path, tiny, monkeypatch, capsys) -> None:
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("pythia_fast.progress.TELL_EVERY_S", 0.01)
    source = make_series(tmp_path / "source", tiny, (0,))
    with HubServer({"EleutherAI/pythia-14m": {"step0": source / "step0"}}) as hub:
        hub.slow("model", bytes_per_s=1e5, times=9)
        series = HubSeries(spec("14m"), tmp_path / "cache", endpoint=hub.url)
        monkeypatch.setattr(module, "open_series", lambda *_, **__: series)
        with Bar("convert", "steps", on=True) as bar:
            convert("14m", tmp_path / "out", (0,), progress=bar)
    told = capsys.readouterr().err.splitlines()
    assert any(line.startswith("convert: 0/1 steps") and " received, " in line for line in told)


def test_doubles_and_mixed_dtypes(tmp_path: Path, tiny: Architecture) -> None:
    from pythia_fast.series import write_checkpoint

    state = random_state_dict(tiny)
    state["embed_out.weight"] = state["embed_out.weight"].float()
    state["gpt_neox.embed_in.weight"] = state["gpt_neox.embed_in.weight"].bfloat16()
    write_checkpoint(tmp_path / "source" / "step0", state, tiny)
    convert(tmp_path / "source", tmp_path / "out")
    assert same(load_file(tmp_path / "out/step0/model.safetensors"), state)
    wide = {name: tensor.float() for name, tensor in state.items()}
    assert same(loaded(tmp_path / "out/step0"), wide)
    doubles = make_series(tmp_path / "doubles", tiny, (0,), dtype=torch.float64)
    convert(doubles, tmp_path / "out64")
    expected = random_state_dict(tiny, dtype=torch.float64)
    assert same(loaded(tmp_path / "out64/step0"), expected)


def test_buffers_are_left_out(tmp_path: Path, tiny: Architecture) -> None:
    from pythia_fast.series import write_checkpoint

    state = random_state_dict(tiny)
    full = state | {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}
    write_checkpoint(tmp_path / "source" / "step0", full, tiny, format="torch")
    convert(tmp_path / "source", tmp_path / "out")
    assert same(load_file(tmp_path / "out/step0/model.safetensors"), state)


def test_what_is_there_is_passed_over(tmp_path: Path, tiny: Architecture) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0, 1, 2)), tmp_path / "out"
    assert convert(source, out, (0, 2)).written == (0, 2)
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    seen: list[tuple[int, int]] = []
    done = convert(source, out, "all", progress=lambda *pair: seen.append(pair))
    assert (done.steps, done.written) == ((0, 1, 2), (1,))
    assert seen == [(2, 3), (3, 3)]
    assert all(path.stat().st_ino == number for path, number in before.items())
    (source / "step0" / "model.safetensors").touch()  # the same weights, by a later date
    assert convert(source, out).written == ()


def test_other_weights_are_not_taken_for_these(tmp_path: Path, tiny: Architecture) -> None:
    source = make_series(tmp_path / "source", tiny, (0, 1), formats=("torch",))
    out = tmp_path / "out"
    convert(source, out)
    shutil.copy(source / "step1/pytorch_model.bin", source / "step0/pytorch_model.bin")
    with pytest.raises(RunMismatchError, match="step0 was made from other weights"):
        convert(source, out)
    shutil.rmtree(out / "step0")
    assert convert(source, out).written == (0,)
    with pytest.raises(RunMismatchError, match="another format or shard size"):
        convert(source, out, format="torch")
    with pytest.raises(RunMismatchError, match="another format or shard size"):
        convert(source, out, max_shard_size="1MB")


def damage_nothing(folder: Path) -> None:
    (folder / RECORD).unlink()


def damage_record(folder: Path) -> None:
    (folder / RECORD).write_text("{")


def damage_record_more(folder: Path) -> None:
    (folder / RECORD).write_text(json.dumps({"files": {"x": None}}))


def damage_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def damage_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_by_link(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "x")
    (folder / "model.safetensors").symlink_to(folder.parent / "x")


def damage_by_path(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["files"]["../../source/step0/config.json"] = {"size": 1}
    (folder / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_nothing, damage_record, damage_record_more, damage_weights, damage_config),
        *(damage_by_link, damage_by_path),
    ],
)
def test_a_folder_that_is_not_whole_never_counts(
    tmp_path: Path, tiny: Architecture, damage
) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0, 1)), tmp_path / "out"
    convert(source, out, (0,))
    damage(out / "step0")
    with pytest.raises(RunMismatchError, match=r"step0.*remove it"):
        convert(source, out)
    assert not (out / "step1").exists()
    shutil.rmtree(out / "step0")
    (out / "step0").mkdir()  # as somebody may have made it by hand
    assert convert(source, out).written == (0, 1)


def test_links_in_the_folder_are_not_followed(tmp_path: Path, tiny: Architecture) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "step0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunMismatchError, match="symbolic link"):
        convert(source, out)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("format", ["safetensors", "torch"])
@pytest.mark.parametrize("call", ["fsync", "rename", "replace", "mkdir"])
def test_whatever_call_fails_no_half_step_is_left(
    tmp_path: Path, tiny: Architecture, monkeypatch, call: str, format: Any
) -> None:
    """The n-th call fails, for every n of a conversion."""
    source = make_series(tmp_path / "source", tiny, (0, 1))
    owner = os if call == "fsync" else Path
    real = getattr(owner, call)
    for failing in range(1, 40):
        count = 0

        def fail(*arguments: Any, failing: int = failing, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        out = tmp_path / f"{failing}"
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, fail)
            try:
                convert(source, out, format=format)
                break
            except WriteError:
                pass
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        assert left in ([], ["step0"], ["step0", "step1"])
        convert(source, out, format=format)
        for step in (0, 1):
            assert open_series(out).open(step).step == step
        assert sorted(path.name for path in out.iterdir()) == ["step0", "step1"]
    assert failing > 2


def test_a_bad_step_is_told_before_anything_is_written(tmp_path: Path, tiny: Architecture) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0, 1, 2)), tmp_path / "out"
    (weights,) = (source / "step1").glob("*model*")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConversionError, match=r"1 step cannot be had .*Nothing was written"):
        convert(source, out)
    assert not list(out.glob("step*"))


def test_a_bad_step_says_what_is_kept_and_how_to_go_on(
    tmp_path: Path, tiny: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were damaged only after the steps were surveyed.
    monkeypatch.setattr(LocalSeries, "_look_into", lambda *_: None)
    source, out = make_series(tmp_path / "source", tiny, (0, 1, 2)), tmp_path / "out"
    (weights,) = (source / "step1").glob("*model*")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ConversionError, match=r"step 1 failed: .*on_error='skip'") as caught:
        convert(source, out)
    assert isinstance(caught.value.__cause__, FormatError)
    assert f"1 of 3 steps is in {out} and kept" in str(caught.value)
    assert [path.name for path in out.iterdir()] == ["step0"]
    skipped = convert(source, out, on_error="skip")
    assert (skipped.steps, skipped.written) == ((0, 2), (2,))
    (failure,) = skipped.failures
    assert failure.step == 1
    assert str(weights) in failure.message
    weights.write_bytes(whole)
    assert convert(source, out).written == (1,)
    with pytest.raises(ArgumentError, match="on_error is"):
        convert(source, out, on_error="ignore")  # type: ignore[arg-type]


def test_an_interrupt_keeps_what_is_done(tmp_path: Path, tiny: Architecture, monkeypatch) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0, 1, 2)), tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(WorkInterruptedError, match="2 of 3 steps"):
        convert(source, out, progress=stop)
    assert convert(source, out).written == (2,)
    assert sorted(path.name for path in out.iterdir()) == ["step0", "step1", "step2"]


def test_what_a_kill_leaves_goes_with_the_next_call(tmp_path: Path, tiny: Architecture) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    dead = out / f".step0.4194304-{identity.mark()}0123abcd.partial"
    dead.mkdir(parents=True)
    (dead / "model.safetensors").write_bytes(b"half")
    living = partial_of(out / "step0")
    living.mkdir()
    convert(source, out)
    assert not dead.exists()
    assert living.exists()


KILLED = """
import os, signal, sys
from pythia_fast.series.convert import convert

real, calls = os.fsync, 0

def fsync(descriptor):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

os.fsync = fsync
convert(sys.argv[1], sys.argv[2])
"""


def test_killed_anywhere_and_resumed_it_is_as_if_nothing_had_been(
    tmp_path: Path, tiny: Architecture
) -> None:
    source = make_gpt_neox_series(tmp_path / "source", tiny, (0, 1))  # one rank: without torch
    convert(source, tmp_path / "expected")
    expected = {
        path.relative_to(tmp_path / "expected"): path.read_bytes()
        for path in (tmp_path / "expected").rglob("*")
        if path.is_file()
    }
    out = tmp_path / "out"
    for call in range(1, 11, 2):
        command = [sys.executable, "-c", KILLED, source, out, str(call)]
        done = subprocess.run(command, check=False, capture_output=True)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        whole = [path for path in out.iterdir() if not path.name.startswith(".")]
        assert all((folder / RECORD).exists() for folder in whole)
    convert(source, out)
    found = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == expected


def test_another_writer_was_first(tmp_path: Path, tiny: Architecture, monkeypatch) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    real = module._Target._write_files

    def overtaken(self: Any, folder: Path, checkpoint: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(module._Target, "_write_files", real)
            if not (out / "step0").exists():
                convert(source, out)
        return real(self, folder, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(module._Target, "_write_files", overtaken)
        convert(source, out)
    assert [path.name for path in out.iterdir()] == ["step0"]
    assert same(loaded(out / "step0"), random_state_dict(tiny))


@pytest.mark.parametrize("same_weights", [True, False])
def test_who_comes_second_looks_at_what_is_there(
    tmp_path: Path, tiny: Architecture, monkeypatch, same_weights: bool
) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    other = make_series(tmp_path / "other", tiny, (0,), dtype=torch.float32)
    real = module._Target._write_files

    def overtaken(self: Any, folder: Path, checkpoint: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(module._Target, "_write_files", real)
            convert(source if same_weights else other, out)
        return real(self, folder, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(module._Target, "_write_files", overtaken)
        if same_weights:
            done = convert(source, out)
            assert (done.steps, done.written, done.written_bytes) == ((0,), (), 0)
        else:
            with pytest.raises(RunMismatchError, match="step0 was made from other weights"):
                convert(source, out)
    assert [path.name for path in out.iterdir()] == ["step0"]
    expected = random_state_dict(tiny, dtype=torch.float16 if same_weights else torch.float32)
    assert same(loaded(out / "step0"), expected)


def test_what_another_machine_writes_stays(tmp_path: Path, tiny: Architecture, monkeypatch) -> None:
    """Both write the same step, and each takes the other for dead by its process's number."""
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    real = module._Target._write_files

    def overtaken(self: Any, folder: Path, checkpoint: Any) -> Any:
        files = real(self, folder, checkpoint)
        with monkeypatch.context() as patch:
            patch.setattr(module._Target, "_write_files", real)
            patch.setattr(identity, "_boot", lambda: "another")
            patch.setattr(identity, "_machine", lambda: "0" * 8)
            assert convert(source, out).written == (0,)
        return files

    with monkeypatch.context() as patch:
        patch.setattr(module._Target, "_write_files", overtaken)
        patch.setattr(os, "getpid", lambda: 4_194_304)
        assert convert(source, out).written == ()
    assert [path.name for path in out.iterdir()] == ["step0"]


def test_an_interrupt_while_the_source_is_looked_at(
    tmp_path: Path, tiny: Architecture, monkeypatch
) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("survey", "identity"):
        with monkeypatch.context() as patch:
            patch.setattr(LocalSeries, name, interrupted)
            with pytest.raises(WorkInterruptedError, match="0 of 1 steps"):
                convert(source, out)
        convert(source, out)  # so that there is something to compare with


def test_no_room_is_said_before_anything_is_written(
    tmp_path: Path, tiny: Architecture, monkeypatch
) -> None:
    source, out = make_series(tmp_path / "source", tiny, (0,)), tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(WriteError, match="free"):
        convert(source, out)
    assert not list(out.iterdir())


def test_wrong_arguments(tmp_path: Path, tiny: Architecture) -> None:
    source = make_series(tmp_path / "source", tiny, (0,))
    (tmp_path / "link").symlink_to(source / "step0")
    for out in (source / "step0", source / "step0/x", tmp_path / "link", source / "../source"):
        with pytest.raises(ArgumentError, match="the source itself or a step of it"):
            convert(source, out)
    assert [path.name for path in source.iterdir()] == ["step0"]
    with pytest.raises(ArgumentError, match="the source itself"):
        convert(source, source)
    with pytest.raises(ArgumentError, match="format"):
        convert(source, tmp_path / "out", format="onnx")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no size"):
        convert(source, tmp_path / "out", max_shard_size="much")
    with pytest.raises(UnknownStepError):
        convert(source, tmp_path / "out", 7)
    (tmp_path / "file").touch()
    with pytest.raises(ReadError, match=r"cannot read .*file/step0: Not a directory"):
        convert(source, tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_it_is_at_the_front_door() -> None:
    assert pythia_fast.convert is convert
