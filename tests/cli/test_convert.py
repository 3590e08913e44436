import json

from pythia_fast.series import local_series
from pythia_fast.testing import make_gpt_neox_series, make_series, tiny


def test_convert(run, tmp_path):
    source = make_gpt_neox_series(tmp_path / "run", tiny(), (0, 1, 2), model_parallel=2)
    out = tmp_path / "out"
    first = run("convert", source, out, "--steps", "0,2", "--max-shard-size", "100kB")
    assert first.stdout.splitlines() == [str(out)]
    assert "2 steps written" in first.stderr
    again = run("convert", source, out, "--max-shard-size", "100kB", "--json", "--quiet")
    found = json.loads(again.stdout)
    assert (found["steps"], found["written"]) == ([0, 1, 2], [1])
    assert found["written_bytes"] == sum(p.stat().st_size for p in (out / "step1").iterdir()) - (
        (out / "step1/conversion.json").stat().st_size
    )
    assert (out / "step2/model.safetensors.index.json").exists()


def test_what_is_wrong_ends_with_3(run, tmp_path):
    source = make_gpt_neox_series(tmp_path / "run", tiny(), (0,))
    assert "the source itself" in run("convert", source, source, exit_code=3).stderr
    run("convert", source, tmp_path / "out")
    result = run("convert", source, tmp_path / "out", "--format", "torch", exit_code=3)
    assert "another format" in result.stderr
    assert run("convert", source, exit_code=2).stdout == ""


def test_a_bad_step_ends_with_4(run, tmp_path, monkeypatch):
    source = make_series(tmp_path / "run", tiny(), (0, 1, 2))
    (source / "step1/pytorch_model.bin").write_bytes(b"nothing")
    told = run("convert", source, tmp_path / "none", "--quiet", exit_code=4).stderr
    assert "1 step cannot be had (1): " in told
    assert "Nothing was written" in told
    # As if it were damaged only after the steps were surveyed.
    monkeypatch.setattr("pythia_fast.series.LocalSeries._look_into", lambda *_: None)
    told = run("convert", source, tmp_path / "out", "--quiet", exit_code=4).stderr
    assert "pythia-fast: step 1 failed: " in told
    assert "1 of 3 steps is in" in told
    assert "--on-error skip" in told
    arguments = ["convert", source, tmp_path / "out", "--on-error", "skip", "--quiet"]
    told = run(*arguments, exit_code=4).stderr.splitlines()
    assert told[0].startswith("1 step written")
    assert told[1].startswith("step 1 failed: ")
    found = json.loads(run(*arguments, "--json", exit_code=4).stdout)
    assert found["steps"] == [0, 2]
    assert [failure["step"] for failure in found["failures"]] == [1]


def test_downloads_go_where_they_are_told_to(run, suite, tmp_path, monkeypatch):
    asked = []

    def open_series(model, *, cache_dir, disk_budget):
        asked.append((cache_dir, disk_budget))
        return local_series(model)

    monkeypatch.setattr("pythia_fast.series.convert.open_series", open_series)
    folder = tmp_path / "downloads"
    arguments = ["--steps", "0", "--cache-dir", folder, "--disk-budget", "1GB"]
    run("convert", suite, tmp_path / "out", *arguments)
    assert asked == [(folder, "1GB")]
