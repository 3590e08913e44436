"""`pythia-fast study`: what is printed, saved and refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pythia_fast
from pythia_fast.analysis import Study
from pythia_fast.cli.study.frame import tell
from pythia_fast.errors import ArgumentError


@pytest.fixture(scope="module")
def swept(
    tiny_series: Path, tiny_ids: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run over 24 sequences with losses, flags and scores; its prompts are 4 tokens long."""
    folder = tmp_path_factory.mktemp("study") / "run"
    metrics = ["perplexity", pythia_fast.MemorizationScore(prompt=4, continuation=1)]
    pythia_fast.sweep(
        tiny_series, tokens=tiny_ids, sequences=24, metrics=metrics, out=folder, progress=False
    )
    return folder


def test_training_order(run, swept: Path, tmp_path: Path) -> None:
    figure, table = tmp_path / "order.svg", tmp_path / "order.csv"
    command = ("study", "training-order", swept, "--batch", 4, "--block", 4)
    details = tmp_path / "details"
    done = run(*command, "--figure", figure, "--table", table, "--details", details)
    assert sorted(path.name for path in details.iterdir()) == [
        "blocks.parquet",
        "quantiles.parquet",
    ]
    assert len(pq.read_table(details / "blocks.parquet")) == 0 + 1 + 2 + 4 + 6 + 6
    lines = done.stdout.splitlines()
    assert lines[0].split()[:5] == ["model", "step", "sequences", "blocks", "memorized"]
    assert lines[5].split()[:4] == ["tiny", "8", "24", "6"]
    assert "block: 4" in lines
    assert f"kept in {figure}" in done.stderr
    assert "<svg" in figure.read_text()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "1", "2", "4", "8", "16"]
    assert rows[0]["dispersion"] == ""


def test_the_folder_of_several_models_runs(run, swept: Path, tmp_path: Path) -> None:
    """It stands for its runs."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(swept)
    command = ("study", "training-order", "--batch", 4, "--block", 4)
    assert run(*command, tmp_path / "runs").stdout == run(*command, swept).stdout


def test_predictability(run, swept: Path, tmp_path: Path) -> None:
    table = tmp_path / "early.parquet"
    done = run("study", "predictability", "--of", swept, "--batch", 4, "--json", "--table", table)
    document = json.loads(done.stdout)
    assert document["study"] == "predictability"
    assert [row["step"] for row in document["rows"]] == [0, 1, 2, 4, 8]
    assert [row["sequences"] for row in document["rows"]] == [0, 4, 8, 16, 24]
    assert pq.read_table(table).to_pylist() == document["rows"]
    done = run("study", "predictability", swept, "--of", swept, "--earlier", "none", exit_code=3)
    assert "no two checkpoints" in done.stderr


def test_emergence(run, swept: Path, tmp_path: Path) -> None:
    table, figure = tmp_path / "e.json", tmp_path / "e.pdf"
    command = ("study", "emergence", swept, "--batch", 4, "--measures", "loss, score")
    done = run(*command, "--steps", "0:5", "--table", table, "--figure", figure)
    assert "loss once seen" in done.stdout
    rows = json.loads(table.read_text())
    assert {row["measure"] for row in rows} == {"loss", "score"}
    assert {row["step"] for row in rows} == {0, 1, 2, 4}
    assert figure.read_bytes().startswith(b"%PDF")


def test_an_interval_stands_beside_its_number_and_long_tables_are_cut(capsys) -> None:
    count = 50
    columns = {"n": list(range(count)), "x": [0.123456] * count, "x_low": [0.1] * count}
    columns |= {"x_high": [0.2, *([None] * (count - 1))], "low": [1.5] * count}
    table = pa.table({**columns, "nothing": pa.nulls(count)})
    study = Study("a study", table, {"found": 12345, "p": 0.000123456, "words": "none"}, print)
    tell(study, None, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["n", "x", "low"]
    assert lines[1].split() == ["0", "0.1235", "[0.1,", "0.2]", "1.5"]
    assert lines[2].split() == ["1", "0.1235", "1.5"]
    assert len({len(line) for line in lines[:41]}) == 1
    assert lines[41:] == [
        "… and 10 more rows: --table saves them all",
        "found: 12,345",
        "p: 0.0001235",
        "words: none",
    ]
    tell(study, None, None, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["found"] == 12345
    assert len(document["rows"]) == count


def test_bad_input_is_told_in_a_line(run, swept: Path, tmp_path: Path) -> None:
    done = run("study", "emergence", swept, exit_code=3)
    assert "give `batch`" in done.stderr
    assert done.stderr.count("\n") == 1
    done = run("study", "emergence", swept, "--batch", 4, "--measures", "los", exit_code=3)
    assert "no measure 'los'; near is loss" in done.stderr
    done = run("study", "training-order", tmp_path, exit_code=3)
    assert "no run.json" in done.stderr
    done = run("study", "training-order", swept, "--steps", 3, exit_code=3)
    assert "3" in done.stderr
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "t.csv"
    done = run("study", "training-order", swept, "--table", inside, exit_code=3)
    assert "cannot write" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("training-order",),
        ("training-order", "RUN", "--figure", "f.jpg"),
        ("training-order", "RUN", "--table", "t.xlsx"),
        ("training-order", "RUN", "--level", "1"),
        ("predictability", "RUN"),
        ("emergence", "RUN", "--batch", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage(run, swept: Path, wrong: tuple[str, ...]) -> None:
    words = [str(swept) if word == "RUN" else word for word in wrong]
    assert "Usage:" in run("study", *words, exit_code=2).stderr


@pytest.mark.parametrize("command", ["training-order", "predictability", "emergence"])
def test_help_has_examples_that_name_real_options(run, command: str) -> None:
    text = run("study", command, "--help").stdout
    examples = text.partition("Examples:\n")[2].splitlines()
    assert len(examples) > 1
    for line in examples:
        assert line.startswith(f"  pythia-fast study {command}")
        assert all(word in text for word in line.split() if word.startswith("--"))


def test_a_study_of_nothing_is_an_error_and_saves_nothing(tmp_path: Path) -> None:
    nothing = Study(
        name="any",
        table=pa.table({"step": pa.array([], pa.int64())}),
        summary={"finding": "no complete step"},
        draw=lambda table: pytest.fail("drawn"),
    )
    with pytest.raises(ArgumentError, match=r"nothing was found.*finding: no complete step"):
        tell(nothing, tmp_path / "f.pdf", tmp_path / "t.csv", as_json=False)
    assert not list(tmp_path.iterdir())
