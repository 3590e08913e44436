"""Whole audits: of folders in every layout, and of the Hub, without and with the weights."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pythia_fast
from pythia_fast.auditing import AuditReport, audit, audit_series
from pythia_fast.errors import ArgumentError, HubError, UnknownModelError, UnknownStepError
from pythia_fast.series import LocalSeries, write_checkpoint
from pythia_fast.series.hub import HubSeries
from pythia_fast.series.revision import Revision
from pythia_fast.suite import spec
from pythia_fast.testing import HubServer, branches, random_state_dict, tiny, tiny_suite

STEPS = (0, 1, 2, 4, 1000, 2000, 50_000, 143_000)


def kinds(report: AuditReport) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(each.severity, each.kind, each.steps) for each in report.findings]


@pytest.mark.parametrize(
    ("layout", "shards"),
    [("safetensors", {}), ("torch", {"shard_bytes": 60_000}), ("mixed", {})],
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_good_folder(layout: str, shards: dict, deep: bool, tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", layout=layout, copies={1: 0}, **shards)
    report = audit(suite, deep=deep, progress=False)
    assert ("expected", "same weights", (0, 1)) in kinds(report)
    assert {each.kind for each in report.findings} <= {"same weights", "other layout"}
    assert (report.ok, report.exit_code, report.deep) == (True, 0, deep)
    assert (len(report.distances) > 0) == deep


@pytest.mark.parametrize("layout", ["gpt-neox layers", "gpt-neox ranks"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_folder_of_gpt_neox(layout: str, ranks: int, tmp_path: Path) -> None:
    suite = tiny_suite(
        tmp_path / "s", steps=STEPS, layout=layout, model_parallel=ranks, copies={1: 0, 2000: 4}
    )
    for deep in (False, True):
        report = audit(suite, deep=deep, progress=False)
        same = [each.steps for each in report.findings if each.kind == "same weights"]
        assert sorted(same) == [(0, 1), (4, 2000)]
        assert "out of place" not in {each.kind for each in report.findings}, "1000 is a good one"
    assert audit(suite, "0,1,2,4", deep=True, progress=False).ok


def test_the_same_weights_in_two_formats_are_found_by_reading(tmp_path: Path) -> None:
    weights = random_state_dict(tiny())
    for step, format in ((0, "torch"), (5, "safetensors")):
        write_checkpoint(tmp_path / f"s/step{step}", weights, tiny(), format=format)
    assert audit(tmp_path / "s", progress=False).ok
    found = kinds(audit(tmp_path / "s", deep=True, progress=False))
    assert ("error", "same weights", (0, 5)) in found


def test_nan_and_infinity_are_counted(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2), layout="torch")
    path = suite / "step1/pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    weights["embed_out.weight"][3, :5] = torch.nan
    weights["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"][7] = -torch.inf
    torch.save(weights, path)
    assert audit(suite, progress=False).ok
    [found] = audit(suite, deep=True, progress=False).unexpected
    assert (found.kind, found.steps, found.count) == ("not finite", (1,), 6)
    assert set(found.tensors) == {"embed_out.weight", "gpt_neox.layers.1.mlp.dense_h_to_4h.bias"}


def test_steps_that_are_broken_in_every_way(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2, 4, 8, 16), layout="torch")
    (suite / "step1/pytorch_model.bin").unlink()
    whole = (suite / "step2/pytorch_model.bin").read_bytes()
    (suite / "step2/pytorch_model.bin").write_bytes(whole[: len(whole) // 3])
    weights = torch.load(suite / "step4/pytorch_model.bin", weights_only=True)
    weights["embed_out.weight"] = weights["embed_out.weight"][:-1].clone()
    torch.save(weights, suite / "step4/pytorch_model.bin")
    weights = torch.load(suite / "step8/pytorch_model.bin", weights_only=True)
    torch.save({n: t.float() for n, t in weights.items()}, suite / "step8/pytorch_model.bin")
    shallow = audit(suite, progress=False)
    assert kinds(shallow) == [
        ("error", "missing", (1,)),
        ("error", "unreadable", (2,)),
        ("error", "unreadable", (4,)),
        ("warning", "other size", (8,)),
    ]
    found = kinds(audit(suite, deep=True, progress=False))
    assert [each for each in found if each[0] == "error"] == kinds(shallow)[:3], "each once"
    assert ("warning", "other dtype", (8,)) in found


@pytest.mark.parametrize("deep", [False, True])
def test_a_config_that_is_missing_or_cut_is_an_error(tmp_path: Path, deep: bool) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2), layout="torch")
    (suite / "step1/config.json").unlink()
    (suite / "step2/config.json").write_text('{"hidden_size": ')
    report = audit(suite, deep=deep, progress=False)
    assert kinds(report) == [("error", "missing", (1,)), ("error", "unreadable", (2,))]
    assert "2 errors" in repr(report)


@pytest.fixture
def model() -> object:
    """12b by name and known anomalies, tiny by shape."""
    return replace(spec("12b"), architecture=tiny(vocab_rows=260))


@pytest.mark.parametrize("redirect", [False, True])
def test_the_hub(model: pythia_fast.ModelSpec, redirect: bool, tmp_path: Path) -> None:
    suite = tiny_suite(
        tmp_path / "s", steps=STEPS, layout="torch", shard_bytes=100_000, copies={1: 0}
    )
    names = sorted(path.name for path in (suite / "step0").glob("*.bin"))
    shutil.copy(suite / f"step143000/{names[0]}", suite / f"step50000/{names[0]}")
    served = branches(suite)
    del served["step1000"]
    with HubServer({model.repo: served}, redirect=redirect) as hub:
        hub.remove(model.repo, "step2000", names[1])
        series = HubSeries(model, tmp_path / "cache", endpoint=hub.url)
        report = audit_series(series, STEPS, progress=False)
        assert kinds(report) == [
            ("error", "missing", (1000,)),
            ("error", "missing", (2000,)),
            ("error", "shared file", (50_000,)),
            ("expected", "same weights", (0, 1)),
        ]
        assert hub.count("-of-", method="GET") == 0, "no weights were downloaded"
        assert hub.count("/cdn/") == 0
        assert report.findings[2].issue == "https://github.com/EleutherAI/pythia/issues/206"
        assert report.findings[3].issue == "https://github.com/EleutherAI/pythia/issues/83"
        deep = audit_series(series, STEPS, deep=True, progress=False)
        assert set(kinds(report)) <= set(kinds(deep))
        [shared] = [each for each in deep.findings if each.kind == "shared tensor"]
        assert (shared.steps, shared.anomaly) == ((50_000, 143_000), report.findings[2].anomaly)


def test_a_download_that_stays_corrupt_is_a_finding(
    model: pythia_fast.ModelSpec, tmp_path: Path
) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2))  # step 1 alone is pytorch_model.bin
    served = {f"step{step}": suite / f"step{step}" for step in (0, 1, 2)}
    with HubServer({model.repo: served}) as hub:
        hub.corrupt("pytorch_model.bin", times=2)
        series = HubSeries(model, tmp_path / "cache", endpoint=hub.url)
        report = audit_series(series, (1, 2), deep=True, progress=False)
        assert kinds(report) == [
            ("error", "unreadable", (1,)),
            ("expected", "other layout", (2,)),
        ]
        assert report.findings[0].meaning.endswith(".wrong"), "where the wrong bytes are"
        hub.fail("/refs", status=403, times=9)
        with pytest.raises(HubError):
            audit_series(HubSeries(model, tmp_path / "new", endpoint=hub.url), (1,), progress=False)


def test_a_file_of_the_hub_that_is_cut_is_one_error(
    model: pythia_fast.ModelSpec, tmp_path: Path
) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(1, 2, 4), layout="torch")
    path = suite / "step2/pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:1000])
    served = {f"step{step}": suite / f"step{step}" for step in (1, 2, 4)}
    with HubServer({model.repo: served}) as hub:
        series = HubSeries(model, tmp_path / "cache", endpoint=hub.url)
        shallow, deep = (
            audit_series(series, (1, 2, 4), deep=deep, progress=False) for deep in (False, True)
        )
    assert kinds(shallow) == [("error", "too small", (2,))]
    assert [each for each in kinds(deep) if each[0] == "error"] == [("error", "unreadable", (2,))]


def test_the_front_door(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2), layout="torch")
    report = pythia_fast.audit(suite, "1:", progress=False)
    assert isinstance(report, pythia_fast.AuditReport)
    assert (report.steps, report.ok) == ((1, 2), True)
    assert report.source == LocalSeries(suite).source
    with pytest.raises(UnknownStepError):
        audit(suite, [3])
    with pytest.raises(UnknownModelError):
        audit("no such model")
    with pytest.raises(ArgumentError, match="size"):
        audit(suite, disk_budget="much")


def test_a_report_in_every_form(tmp_path: Path) -> None:
    folder = tmp_path / "<b>s"
    suite = tiny_suite(folder, steps=(0, 1, 2, 3), layout="torch", copies={1: 0, 3: 2})
    report = audit(suite, progress=False)
    assert not report.ok
    assert report, "a report with findings, or without, is true"
    text = str(report)
    assert "1 error, 1 oddity that is no fault" in text.splitlines()[0]
    assert text.splitlines()[2:5] == [
        "   severity  kind          steps  issue",
        "1  error     same weights  2, 3",
        "2  expected  same weights  0, 1",
    ]
    assert "1. steps 2, 3 have all weights in common, byte for byte" in text
    assert "what to do: use at most one of these steps" in text
    loaded = json.loads(report.to_json())
    assert (loaded["ok"], len(loaded["findings"])) == (False, 2)
    assert loaded["findings"][0]["steps"] == [2, 3]
    rows = report.table.to_pylist()
    assert [row["severity"] for row in rows] == ["error", "expected"]
    assert rows[0] == loaded["findings"][0]
    page = report._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "1 error" in repr(report)
    clean = audit(suite, "2", progress=False)
    assert (clean.table.num_rows, clean.exit_code, bool(clean)) == (0, 0, True)
    assert "nothing found" in str(clean)
    assert clean.table.schema == report.table.schema


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2), layout="torch")
    (suite / "step1/model.safetensors").mkdir()
    series = LocalSeries(suite)
    survey = series.survey

    def surveyed(steps: Sequence[int]) -> Mapping[int, Revision]:
        found = survey(steps)
        shutil.rmtree(suite / "step2")
        return found

    monkeypatch.setattr(series, "survey", surveyed)
    found = audit_series(series, (0, 1, 2), progress=False).findings
    assert [(each.kind, each.steps) for each in found] == [("unreadable", (1,)), ("missing", (2,))]
    assert "any more" in found[1].meaning


def test_what_was_mended_is_said_to_be(tmp_path: Path) -> None:
    model = replace(spec("12b"), architecture=tiny())
    suite = tiny_suite(tmp_path / "s", steps=(2000, 8000), layout="torch", architecture=tiny())
    with HubServer({model.repo: {"step2000": suite / "step2000"}}) as hub:
        series = HubSeries(model, tmp_path / "cache", endpoint=hub.url)
        [found] = audit_series(series, (2000, 4000), progress=False).findings
        report = audit_series(series, (2000, 4000), progress=False)
    assert "1  error     missing  4000   #107" in str(report)
    assert (found.kind, found.steps) == ("missing", (4000,))
    assert "mended on the Hub since" in str(found.known)
    assert str(found.known).endswith("issues/107)")


def test_progress_is_told_where_there_is_no_terminal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1))
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    audit(suite, "0,1", deep=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert {line.split(":")[0] for line in captured.err.splitlines()} == {
        "audit files",
        "audit weights",
    }
    audit(suite, "0,1", deep=True, progress=False)
    assert capsys.readouterr().err == ""


def test_what_is_downloaded_is_told_meanwhile(
    model: pythia_fast.ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("pythia_fast.progress.TELL_EVERY_S", 0.01)
    suite = tiny_suite(tmp_path / "s", steps=(0,), layout="torch")
    with HubServer({model.repo: {"step0": suite / "step0"}}) as hub:
        hub.slow("pytorch_model.bin", bytes_per_s=1e5, times=9)
        series = HubSeries(model, tmp_path / "cache", endpoint=hub.url)
        audit_series(series, (0,), deep=True)
    told = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("audit weights: 0/1 steps") and " received, " in line for line in told
    )
