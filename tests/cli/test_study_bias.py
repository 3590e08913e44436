"""`study gender-bias`, `study term-frequency` and `study arithmetic`."""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest

from pythia_fast.analysis.arithmetic import Questions
from pythia_fast.tokens import TokenDataset, write_tokens


@pytest.fixture
def evals(tmp_path):
    """Published files of one base and one intervened model, and a CSV of arithmetic."""
    folder = tmp_path / "evals"
    for name, value in (("pythia-v1/410m-deduped/zero-shot/410m-deduped_step143000", 0.6),
                        ("pythia-v1/410m-deduped/intervention/"
                         "intervention-410m-deduped_step143000", 0.5)):  # fmt: skip
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True)
        numbers = {"pct_stereotype": value, "pct_stereotype_stderr": 0.03}
        path.write_text(
            json.dumps(
                {
                    "results": {"crows_pairs_english_gender": numbers},
                    "versions": {"crows_pairs_english_gender": 0},
                    "config": {"model": "hf-causal", "num_fewshot": 0},
                }
            )
        )
    path = folder / "csv" / "pythia-350m-deduped" / "term_frquency_all_shots.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["model", "checkpoint", "task", "fewshot", "acc", "acc_stderr"])
        for first in range(20):
            task = f"num_reasoning_arithmetic_addition_{first}"
            model = "EleutherAI/pythia-350m-deduped"
            out.writerow([model, 1000, task, 16, (20 - first) / 50, 0.05])
    return folder


def test_gender_bias_of_published_evaluations(run, evals, tmp_path):
    arguments = ("study", "gender-bias", "--published", evals)
    found = json.loads(
        run(*arguments, "--figure", tmp_path / "bias.svg", "--table", tmp_path / "bias.csv",
            "--json").stdout
    )  # fmt: skip
    assert [(row["model"], row["variant"], row["value"]) for row in found["rows"]] == [
        ("410m-deduped", None, 0.6),
        ("410m-deduped", "intervention", 0.5),
    ]
    assert (tmp_path / "bias.svg").read_text().startswith("<?xml")
    assert len((tmp_path / "bias.csv").read_text().splitlines()) == 3
    words = run(*arguments, "--models", "410m-deduped").stdout
    assert "intervention minus base at step 143,000: -0.100, standard error 0.042" in words
    assert run(*arguments, "--models", " 410m-deduped , 410m-deduped").stdout == words
    assert "no model '410m'" in run(*arguments, "--models", "410m", exit_code=3).stderr
    run(*arguments, "--details", tmp_path / "behind")
    (effect,) = pq.read_table(tmp_path / "behind" / "effects.parquet").to_pylist()
    assert effect["difference"] == pytest.approx(-0.1)
    assert effect["p_holm"] == effect["p"] < 0.02


def test_gender_bias_of_nothing_is_an_error(run, evals, tmp_path):
    for path in (evals / "pythia-v1").rglob("*.json"):
        path.write_text("{")
    figure = tmp_path / "bias.pdf"
    arguments = ("study", "gender-bias", "--published", evals, "--figure", figure)
    assert "evaluate crows_pairs_english_gender" in run(*arguments, exit_code=3).stderr
    assert not figure.exists()


@pytest.mark.parametrize(
    ("study", "options"),
    [
        ("arithmetic", ("--shots", "--out")),
        ("emergence", ("--figure", "--details")),
        ("gender-bias", ("--figure", "--details", "--published", "--tasks")),
        ("predictability", ("--figure", "--table")),
        ("term-frequency", ("--figure", "--counts")),
        ("training-order", ("--figure", "--details")),
    ],
)
def test_the_help_of_each_study(run, study, options):
    words = run("study", study, "--help").stdout
    assert f"pythia-fast study {study} " in words
    assert all(f"  {option} " in words for option in options)


def test_the_tasks_are_told(run):
    folder = run("study", "gender-bias", "--tasks").stdout.strip()
    assert folder.endswith("wino_bias")


def test_term_frequency_counts_and_keeps_the_counts(run, evals, words, tmp_path):
    words.save(str(tmp_path / "tokenizer.json"))
    texts = [" ".join([""] + [str(n) for n in range(20) for _ in range(21 - n)])] * 1000
    rows = [row.tolist() for row in TokenDataset(texts, tokenizer=words)]
    write_tokens(tmp_path / "data", rows)
    arguments = ("study", "term-frequency", "--published", evals, "--json")
    where = ("--data", tmp_path / "data", "--tokenizer", tmp_path / "tokenizer.json")
    kept = tmp_path / "counts.parquet"
    counted = run(*arguments, *where, "--batch", 1, "--save-counts", kept)
    (row,) = json.loads(counted.stdout)["rows"]
    assert row["spearman"] == pytest.approx(1.0)
    assert (row["operation"], row["shots"], row["terms"]) == ("plus", 16, 20)
    counts = pq.read_table(kept).to_pylist()
    assert (counts[3]["step"], counts[3]["term"], counts[3]["count"]) == (1000, "3", 18_000)
    assert (counts[3]["rule"], counts[3]["batch"]) == ("spaced", 1)
    for ending in (".parquet", ".csv", ".json"):
        run(*arguments, *where, "--batch", 1, "--save-counts", kept.with_suffix(ending))
        again = run(*arguments, "--counts", kept.with_suffix(ending))
        assert again.stdout == counted.stdout
    figure = tmp_path / "frequency.pdf"
    run(*arguments, "--counts", kept, "--figure", figure)
    assert figure.read_bytes().startswith(b"%PDF")
    kept.write_bytes(b"none")
    assert "holds no counts" in run(*arguments, "--counts", kept, exit_code=3).stderr


def test_arithmetic_is_swept(run, suite, tmp_path, monkeypatch):
    def few(*, shots):
        return Questions(shots=shots, firsts=[1, 2, 3], seconds=[4, 5])

    monkeypatch.setattr("pythia_fast.analysis.arithmetic.Questions", few)
    out = tmp_path / "run"
    arguments = (
        *("study", "arithmetic", suite, "--steps", "1,2", "--shots", "0,2", "--out", out),
        *("--tokenizer", suite / "tokenizer.json", "--quiet"),
    )
    lines = run(*arguments).stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step       1: 0.00% right")
    found = json.loads(run(*arguments, "--json").stdout)
    assert [row["step"] for row in found["rows"]] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gender-bias",), "Give RUN folders, or --published."),
        (("term-frequency",), "Give RUN folders, or --published."),
        (("term-frequency", "run"), "Give one of --counts and --data."),
        (("term-frequency", "run", "--data", "x"), "--data needs --tokenizer."),
        (("arithmetic", "70m", "--tokenizer", "t", "--shots", "two"), "'two' is not numbers"),
    ],
)
def test_wrong_usage(run, arguments, words):
    assert words in run("study", *arguments, exit_code=2).stderr


def test_counts_that_are_none_and_options_that_exclude_each_other(run, evals, tmp_path):
    ask = ("study", "term-frequency", "--published", evals)
    for text in ("5", '{"a": 1}', "[1, 2]"):
        counts = tmp_path / "counts.json"
        counts.write_text(text)
        assert "it holds no counts" in run(*ask, "--counts", counts, exit_code=3).output
    both = run(*ask, "--counts", counts, "--save-counts", tmp_path / "c.csv", exit_code=2)
    assert "made anew" in both.output
    data = ("--data", tmp_path / "none", "--tokenizer", tmp_path / "t.json")
    odd = run(*ask, *data, "--save-counts", tmp_path / "c.txt", exit_code=2)
    assert ".parquet" in odd.output  # before anything is counted


def test_arithmetic_where_every_step_fails(run, suite, tmp_path, monkeypatch):
    def few(shots):
        return Questions(operations=["plus"], shots=shots, firsts=range(2), seconds=[1])

    monkeypatch.setattr("pythia_fast.analysis.arithmetic.Questions", few)
    broken = tmp_path / "broken"
    shutil.copytree(suite, broken)
    for weights in broken.glob("step1/*model*"):
        weights.write_bytes(b"no weights")
    arguments = (
        *("study", "arithmetic", broken, "--steps", "1", "--shots", "0", "--quiet"),
        *("--tokenizer", suite / "tokenizer.json", "--out", tmp_path / "run"),
    )
    assert "step 1 failed" in run(*arguments, exit_code=4).stderr
