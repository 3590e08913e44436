"""term_frequency against scipy, a regression by hand, and planted answers."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

import pythia_fast
from pythia_fast.analysis.arithmetic import Questions
from pythia_fast.analysis.frequency import term_frequency
from pythia_fast.errors import ArgumentError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.passes.terms import Terms, count_terms

TASKS = {"times": "multiplication", "plus": "addition"}


def published(correct, *, model="410m-deduped", step=1000, shots=16, operation="times", **more):
    """Rows as the suite's CSV has them, from the right answers of 50 for each first number."""
    return pa.Table.from_pylist(
        [
            {
                "model": model,
                "step": step,
                "task": f"num_reasoning_arithmetic_{TASKS[operation]}_{first}",
                "metric": "acc",
                "num_fewshot": shots,
                "value": right / 50,
                **more,
            }
            for first, right in enumerate(correct)
        ]
    )


def counts_table(counts, steps=(1000,)):
    return pa.Table.from_pylist(
        [
            {"step": step, "term": str(term), "count": int(count)}
            for step in steps
            for term, count in enumerate(counts)
        ]
    )


def logistic_by_hand(x, right, asked):
    """Newton's method, and the sandwich estimate of the slope's error."""
    design = np.stack([np.ones_like(x), x], 1)
    beta = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        bread = design.T @ (design * (asked * p * (1 - p))[:, None])
        beta += np.linalg.solve(bread, design.T @ (right - asked * p))
    scores = design * (right - asked * p)[:, None]
    inverse = np.linalg.inv(bread)
    covariance = inverse @ (scores.T @ scores) @ inverse
    return beta[1], np.sqrt(covariance[1, 1])


@pytest.fixture(scope="module")
def planted():
    """100 numbers, of which the often seen are answered better."""
    random = np.random.default_rng(1)
    counts = np.round(10 ** random.uniform(2, 6, 100)).astype(int)
    correct = random.binomial(50, 1 / (1 + np.exp(-(np.log10(counts) - 4.5))))
    return counts, correct


def test_numbers_of_a_group(planted):
    counts, correct = planted
    study = term_frequency(published(correct), counts_table(counts))
    (row,) = study.table.to_pylist()
    accuracy = correct / 50
    assert (row["model"], row["step"], row["operation"], row["shots"]) == (
        *("410m-deduped", 1000),
        *("times", 16),
    )
    assert row["accuracy"] == pytest.approx(accuracy.mean())
    rho, p = scipy.stats.spearmanr(counts, accuracy)
    assert (row["spearman"], row["p_spearman"]) == (pytest.approx(rho), pytest.approx(p))
    slope, error = logistic_by_hand(np.log10(counts + 1.0), correct, np.full(100, 50))
    assert row["slope"] == pytest.approx(slope, rel=1e-6)
    assert row["slope_stderr"] == pytest.approx(error, rel=1e-6)
    assert row["p_slope"] == pytest.approx(2 * scipy.stats.norm.sf(slope / error), rel=1e-3)
    order = np.argsort(counts, kind="stable")
    bottom, top = accuracy[order[:10]], accuracy[order[-10:]]
    assert row["gap"] == pytest.approx(top.mean() - bottom.mean())
    assert row["gap_stderr"] == pytest.approx(
        np.hypot(scipy.stats.sem(top), scipy.stats.sem(bottom))
    )
    ranks = [scipy.stats.rankdata(x) for x in (counts, np.arange(100), accuracy)]
    design = np.stack([np.ones(100), ranks[1]], 1)
    rest = [x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (ranks[0], ranks[2])]
    assert row["partial"] == pytest.approx(np.corrcoef(*rest)[0, 1])
    assert row["p_holm"] == row["p_partial"] < 1e-6
    assert study.summary["rising with frequency"] == 1
    assert study.summary["of these at 5% after Holm"] == 1
    assert "spearman" in study.summary["410m-deduped, times"]
    terms = study.details["terms"]
    assert terms["count"].to_pylist() == sorted(counts.tolist())
    assert sum(terms["correct"].to_pylist()) == correct.sum()


def test_bins_hold_every_term_that_was_seen(planted):
    counts, correct = planted
    counts = counts.copy()
    counts[:3] = 0
    study = term_frequency(published(correct), counts_table(counts), bins=7)
    bins = study.details["bins"].to_pylist()
    assert sum(each["terms"] for each in bins) == 97
    for each in bins:
        last = each["high"] >= counts.max() * 0.999
        inside = (counts >= each["low"] * 0.999999) & (
            (counts <= each["high"] * 1.000001) if last else (counts < each["high"])
        )
        assert each["terms"] == inside.sum()
        assert each["accuracy"] == pytest.approx((correct[inside] / 50).mean())


def test_several_tables_and_the_figure(planted):
    _, correct = planted
    none = np.zeros(100, int)
    tables = [
        published(correct),
        published(none, operation="plus"),
        published(correct, step=2000, shots=0),
        published(correct, model="14m-deduped"),
        published([50] * 50 + [0] * 50, model="31m-deduped"),
    ]
    counted = counts_table(np.arange(100)[::-1], steps=(1000, 2000))
    study = term_frequency(tables, counted)
    assert [(row["model"], row["step"], row["operation"]) for row in study.table.to_pylist()] == [
        ("410m-deduped", 1000, "plus"),
        ("410m-deduped", 1000, "times"),
        ("410m-deduped", 2000, "times"),
        ("14m-deduped", 1000, "times"),
        ("31m-deduped", 1000, "times"),
    ]
    plus, *_, separated = study.table.to_pylist()
    assert plus["accuracy"] == plus["gap"] == 0
    assert plus["spearman"] is plus["slope"] is None
    # All right above a count and none below it: the slope would be infinite.
    assert separated["spearman"] > 0.8
    assert separated["slope"] is None
    panels = study.figure().axes
    assert [axes.get_title() for axes in panels[:3]] == [
        "14m-deduped",
        "31m-deduped",
        "410m-deduped",
    ]  # by size
    assert panels[0].get_ylabel() == "accuracy, x plus y"
    edges = {(row["low"], row["high"]) for row in study.details["bins"].to_pylist()}
    assert len(edges) <= 20  # the same for all


def test_size_is_told_from_frequency():
    """Counts that fall with the number, and answers that depend on the number alone."""
    random = np.random.default_rng(4)
    counts = np.round(1e6 / (1 + np.arange(100)) ** random.uniform(0.9, 1.3, 100)).astype(int)
    correct = random.binomial(50, np.linspace(0.9, 0.1, 100))
    (row,) = term_frequency(published(correct), counts_table(counts)).table.to_pylist()
    assert row["spearman"] > 0.7
    assert abs(row["partial"]) < 0.25
    ordered = term_frequency(published(correct), counts_table(np.arange(100)[::-1]))
    assert ordered.table["partial"].to_pylist() == [None]  # the two cannot be told apart


def test_models_that_are_not_drawn_are_named(planted):
    counts, correct = planted
    names = ["14m", "70m", "160m", "410m", "1b", "1.4b"]
    study = term_frequency([published(correct, model=name) for name in names], counts_table(counts))
    figure = study.figure()
    assert [axes.get_title() for axes in figure.axes] == ["14m", "160m", "410m", "1.4b"]
    assert "not drawn: 70m, 1b" in figure.get_supxlabel()


def test_counts_of_one_corpus_are_not_taken_for_another(planted):
    counts, correct = planted
    tables = [published(correct, model=name) for name in ("410m", "410m-deduped")]
    with pytest.raises(ArgumentError, match="410m on pile-standard and 410m-deduped on pile-d"):
        term_frequency(tables, counts_table(counts))


def test_rows_that_are_doubtful_are_left_out(planted):
    counts, correct = planted
    good = published(correct, status="ok")
    bad = published(correct, status="doubtful")
    both = pa.concat_tables([good, bad])
    study = term_frequency(both, counts_table(counts))
    assert study.table.equals(term_frequency(good, counts_table(counts)).table)
    assert "100 rows" in study.summary["left out"]


def test_from_a_sweep_and_counted_data(tiny_series, words, tmp_path, tiny):
    """Every part together: questions, sweep, counts, study."""
    questions = Questions(shots=[0], operations=["plus"], firsts=range(5), seconds=[1, 2])
    ids = np.array([[i % tiny.vocab_rows for i in range(6)]] * len(questions))
    result = pythia_fast.sweep(
        tiny_series,
        [1, 2],
        tokens=ids,
        sequences=len(questions),
        metrics=questions.metric(words),
        out=tmp_path / "run",
        progress=False,
    )
    texts = [" 0 0 0 1", " 3 3 3 3", " 4", " 2"]
    data = TokenDataset(texts, tokenizer=words)
    counts = count_terms(data, Terms.numbers(range(5), words), [1, 2], batch=2)
    study = term_frequency(result, counts)
    assert study.table["terms"].to_pylist() == [5, 5]
    assert study.table["step"].to_pylist() == [1, 2]
    terms = study.details["terms"].filter(pa.compute.equal(study.details["terms"]["step"], 1))
    assert dict(zip(terms["term"].to_pylist(), terms["count"].to_pylist(), strict=True)) == {
        2: 0,
        4: 0,
        1: 1,
        0: 3,
        3: 4,
    }
    assert terms["questions"].to_pylist() == [2] * 5


def test_what_is_wrong(planted, tiny_series, tiny_ids, tmp_path):
    counts, correct = planted
    with pytest.raises(ArgumentError, match="not counted for step 1000; they were for 5"):
        term_frequency(published(correct), counts_table(counts, steps=(5,)))
    with pytest.raises(ArgumentError, match="the number 99 was not counted"):
        term_frequency(published(correct), counts_table(counts[:99]))
    with pytest.raises(ArgumentError, match="two results have the questions 0 times"):
        term_frequency([published(correct)] * 2, counts_table(counts))
    with pytest.raises(ArgumentError, match="has no term and no count; it has step"):
        term_frequency(published(correct), pa.table({"step": [1]}))
    with pytest.raises(ArgumentError, match="has no 'num_fewshot'"):
        term_frequency(published(correct).drop(["num_fewshot"]), counts_table(counts))
    with pytest.raises(ArgumentError, match="no task num_reasoning"):
        term_frequency(published(correct).slice(0, 0), counts_table(counts))
    with pytest.raises(ArgumentError, match="not that of 50 questions"):
        term_frequency(published([0.5]), counts_table(counts))
    with pytest.raises(ArgumentError, match="SweepResults or tables"):
        term_frequency([3], counts_table(counts))
    with pytest.raises(ArgumentError, match="bins is at least 1"):
        term_frequency(published(correct), counts_table(counts), bins=0)
    run = pythia_fast.sweep(
        tiny_series, [1], tokens=tiny_ids, sequences=2, out=tmp_path / "run", progress=False
    )
    with pytest.raises(ArgumentError, match="no metric 'arithmetic', but perplexity"):
        term_frequency(run, counts_table(counts))
    empty = term_frequency([], counts_table(counts))
    assert "no answered question" in str(empty.summary["note"])
    empty.figure()
