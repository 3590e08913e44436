"""Ours beside the published ones, against scipy and statsmodels asked otherwise."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pythia_fast.analysis import compare
from pythia_fast.analysis.publications import SCHEMA
from pythia_fast.analysis.publications.comparing import today
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.tidy import TIDY

NAMES = ("model", "step", "task", "metric", "num_fewshot", "value", "stderr")


def ours(*rows):
    return pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows], schema=TIDY)


def theirs(*rows, **more):
    common = {"status": "ok", "file": "f.json"} | more
    found = [dict(zip(NAMES, row, strict=True)) | common for row in rows]
    return pa.Table.from_pylist(found, schema=SCHEMA)


ONE = ("70m", 1000, "sciq", "acc", 0, 0.50, 0.02)


def test_a_difference_is_in_its_own_standard_errors():
    study = compare(ours((*ONE[:5], 0.56, 0.03)), theirs(ONE))
    (row,) = study.table.to_pylist()
    assert (row["ours"], row["published"], row["file"]) == (0.56, 0.5, "f.json")
    assert row["difference"] == pytest.approx(0.06)
    z = 0.06 / math.sqrt(0.03**2 + 0.02**2)
    assert row["z"] == pytest.approx(z)
    assert row["p"] == pytest.approx(2 * stats.norm.cdf(-z))
    assert row["p_holm"] == pytest.approx(row["p"])
    assert study.summary["compared"] == 1
    assert study.summary["largest |z|"] == pytest.approx(z)
    assert study.summary["of"] == "70m step 1000 sciq acc"


def test_many_tests_are_corrected_by_holm():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 2, 40)
    mine = ours(*((*ONE[:2], f"t{n}", "acc", 0, value, 1.0) for n, value in enumerate(values)))
    other = theirs(*((*ONE[:2], f"t{n}", "acc", 0, 0.0, 0.0) for n in range(40)))
    table = compare(mine, other).table
    p = table["p"].to_numpy()
    order = np.argsort(p)
    wanted = np.empty(40)
    wanted[order] = np.minimum(1, np.maximum.accumulate((40 - np.arange(40)) * p[order]))
    assert table["p_holm"].to_numpy() == pytest.approx(wanted)
    assert compare(mine, other).summary["differ (Holm, 5%)"] == int((wanted < 0.05).sum())


def test_equal_numbers_are_never_told_apart():
    study = compare(ours(ONE), theirs(ONE))
    (row,) = study.table.to_pylist()
    assert (row["z"], row["p"], row["p_holm"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("hendrycksTest-anatomy", "acc"), ("mmlu_anatomy", "acc")),
        (("lambada_openai", "ppl"), ("lambada_openai", "perplexity")),
        (
            ("crows_pairs_english_gender", "likelihood_difference"),
            ("crows_pairs_english_gender", "likelihood_diff"),
        ),
        (("wikitext", "word_perplexity"), ("wikitext", "word_perplexity")),
        (("sciq", "ppl"), ("sciq", "ppl")),
    ],
)
def test_old_names_are_todays(old, new):
    assert today(*old) == new
    study = compare(ours(("70m", 0, *new, 0, 1.0, 0.1)), theirs(("70m", 0, *old, 0, 1.0, 0.1)))
    assert study.table["task"].to_pylist() == [new[0]]


def test_only_the_same_checkpoint_task_metric_and_shots_are_compared():
    others = [
        ("160m", *ONE[1:]),
        ("70m", 2000, *ONE[2:]),
        (*ONE[:2], "piqa", *ONE[3:]),
        (*ONE[:3], "acc_norm", *ONE[4:]),
        (*ONE[:4], 5, *ONE[5:]),
    ]
    study = compare(ours(ONE), theirs(*others))
    assert len(study.table) == 0
    assert study.summary["compared"] == 0
    words = "no shots of the same model and step and task and metric is in both"
    assert study.summary["nothing to compare"] == f"{words}: ours 0; published 5"
    assert study.figure().axes[0].texts[0].get_text() == "nothing to compare"


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        ({"variant": "intervention"}, 0),
        ({"variant": "0.5MtokBS"}, 0),
        ({"variant": "baseline"}, 1),
        ({"variant": "bf16"}, 1),
        ({"prompt": "refers_to"}, 0),
        ({"status": "duplicate"}, 0),
        ({"status": "foreign"}, 0),
        ({"status": "doubtful"}, 1),
    ],
)
def test_only_trusted_rows_of_the_suites_own_models(more, rows):
    study = compare(ours(ONE), theirs(ONE, **more))
    assert len(study.table) == rows
    doubtful = more.get("status") == "doubtful"
    assert study.summary["compared"] == (0 if doubtful else rows)
    assert study.summary["doubtful"] == int(doubtful)
    if doubtful:
        assert study.table["p_holm"].to_pylist() == [None]


@pytest.mark.parametrize("error", [None, 0.0])
def test_without_standard_errors_there_is_no_test(error):
    row = (*ONE[:6], error)
    (found,) = compare(ours(row), theirs((*ONE[:5], 0.4, error))).table.to_pylist()
    assert found["difference"] == pytest.approx(0.1)
    assert (found["z"], found["p"], found["p_holm"]) == (None, None, None)


def test_numbers_that_are_not_finite_are_left_out():
    bad = (*ONE[:5], math.nan, 0.1)
    assert compare(ours(bad), theirs(ONE)).summary["compared"] == 0


def test_a_folder_and_an_object_with_a_table_do_too(tmp_path):
    class Result:
        table = ours(ONE)

    assert compare(Result(), theirs(ONE)).summary["compared"] == 1
    assert compare(Result(), tmp_path).summary["only ours"] == 1


def test_bad_tables_are_refused():
    with pytest.raises(ArgumentError, match="no stderr"):
        compare(ours(ONE).drop_columns("stderr"), theirs(ONE))
    with pytest.raises(ArgumentError, match="it has no variant, prompt, status, file"):
        compare(ours(ONE), ours(ONE))
    with pytest.raises(ArgumentError, match="twice"):
        compare(ours(ONE, ONE), theirs(ONE))


def test_the_figure_shows_the_tasks_that_differ_most():
    mine = ours(*((*ONE[:2], f"t{n:02}", "acc", 0, n / 10, 1.0) for n in range(40)))
    other = theirs(*((*ONE[:2], f"t{n:02}", "acc", 0, 0.0, 1.0) for n in range(40)))
    (axes,) = compare(mine, other).figure().axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(labels), labels[0], labels[-1]) == (30, "t39 acc", "t10 acc")
    assert "10 more are closer" in axes.get_title()
    z = {line.get_gid(): line for line in axes.lines}["named"].get_xdata()
    assert max(z) == pytest.approx(3.9 / math.sqrt(2))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("160m", *ONE[1:]), "no model is in both: ours 70m; published 160m"),
        (
            (*ONE[:1], 2000, *ONE[2:]),
            "no step of the same model is in both: ours 1000; published 2000",
        ),
        ((*ONE[:2], "piqa", *ONE[3:]), "no task of the same model and step is in both: ours sciq"),
        ((*ONE[:3], "em", *ONE[4:]), "no metric of the same model and step and task is in both"),
    ],
)
def test_what_does_not_match_is_said(other, words):
    assert words in compare(ours(ONE), theirs(other)).summary["nothing to compare"]


def test_many_steps_are_cut_short():
    mine = ours(*((ONE[0], step, *ONE[2:]) for step in range(8)))
    said = compare(mine, theirs(ONE)).summary["nothing to compare"]
    assert "ours 0, 1, 2, 3, 4, 5 and 2 more; published 1000" in said


@pytest.mark.parametrize("first", [None, "baseline"])
def test_a_checkpoint_that_is_a_baseline_too_counts_once(first):
    """The model's own number, wherever it stands, unless it is doubtful."""
    second = "baseline" if first is None else None
    both = [
        theirs((*ONE[:5], value, 0.1), variant=variant)
        for value, variant in (
            (0.1 if first is None else 0.2, first),
            (0.1 if second is None else 0.2, second),
        )
    ]
    (row,) = compare(ours(ONE), pa.concat_tables(both)).table.to_pylist()
    assert row["published"] == 0.1
    doubtful = theirs((*ONE[:5], 0.3, 0.1), status="doubtful")
    trusted = theirs((*ONE[:5], 0.2, 0.1), variant="baseline")
    (row,) = compare(ours(ONE), pa.concat_tables([doubtful, trusted])).table.to_pylist()
    assert row["published"] == 0.2
