"""Does the study of training order find clusters that are there, and none that are not?"""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pythia_fast.analysis import order, training_order
from pythia_fast.errors import ArgumentError, UnknownStepError
from pythia_fast.runs import SweepResults

BLOCK = 64


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_of_a_poisson_process_p_is_uniform(planted, flags, rng) -> None:
    steps = range(8, 128)  # each of which has seen all rows
    run = planted({step: flags(rng.random(60 * BLOCK) < 0.03) for step in steps})
    table = training_order(run, block=BLOCK).table
    p = table["p_binomial"].to_numpy()
    assert len(p) == len(steps)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert stats.kstest(table["p_poisson"].to_numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(table["p_trend"].to_numpy(), "uniform").pvalue > 0.01
    inside = table["dispersion"].to_numpy() < table["poisson_high"].to_numpy()
    inside &= table["dispersion"].to_numpy() > table["poisson_low"].to_numpy()
    assert 0.88 < inside.mean() < 0.99
    assert min(table["p_holm"].to_pylist()) > 0.05


def test_where_few_are_memorized_chance_is_no_finding(rng) -> None:
    found = []
    for _ in range(60):
        counts = np.bincount(rng.integers(0, 500, 10), minlength=500)
        found.append(order._tests(np.full(500, 512), counts, 0.95))
    for name in ("p_binomial", "p_poisson", "p_trend"):
        p = np.array([row[name] for row in found])
        assert (p < 0.05).mean() < 0.15
        assert (p < 0.005).mean() < 0.05
    inside = [row["poisson_low"] <= row["dispersion"] <= row["poisson_high"] for row in found]
    assert np.mean(inside) > 0.9


def test_two_pairs_of_thirty_are_no_more_than_chance(rng) -> None:
    counts = np.repeat([2, 1, 0], [2, 26, 1972])
    row = order._tests(np.full(2000, 512), counts, 0.95)
    chance = np.mean([len(np.unique(rng.integers(0, 2000, 30))) <= 28 for _ in range(40_000)])
    assert row["p_poisson"] == pytest.approx(chance, rel=0.25)
    assert row["p_binomial"] == pytest.approx(chance, rel=0.25)
    chi_squared = stats.chi2.sf(row["dispersion"] * 1999, 1999)
    assert chi_squared < chance / 50


def test_a_few_that_cluster_are_found(planted, flags) -> None:
    memorized = np.zeros(1000 * BLOCK, dtype=bool)
    memorized[[5, 6, 7, 700, 9000, 40_000]] = True  # three of six in a block
    run = planted({1000: flags(memorized), 2000: flags(~memorized)})
    study = training_order(run, block=BLOCK)
    rare, common = study.table.to_pylist()
    assert rare["p_binomial"] == common["p_binomial"]
    # About C(6, 3) / 1000² in truth; 9,999 draws could not say less than 1e-4.
    assert max(rare["p_binomial"], rare["p_poisson"]) < 9e-5
    assert common["p_poisson"] == 1
    assert "cluster in 2 of 2" in study.summary["finding"]
    assert training_order(run, block=BLOCK).table.equals(study.table)


def test_a_trend_too_weak_for_clusters_is_told(planted, flags, rng) -> None:
    shares = np.linspace(1.7, 2.3, 4000).repeat(BLOCK) / BLOCK
    p = rng.random(len(shares))
    study = training_order(
        planted({9000: flags(p < shares), 10_000: flags(p < shares[::-1])}), block=BLOCK
    )
    rises, falls = study.table.to_pylist()
    for row in (rises, falls):
        assert row["p_trend"] < row["p_trend_holm"] < 1e-4
        assert row["p_holm"] > 0.05
    assert study.summary["finding"] == (
        "memorization rises with training in 1 of 2 checkpoints; "
        "memorization falls with training in 1 of 2 checkpoints"
    )
    even = training_order(planted({10_000: flags(p < 0.02)}, name="even"), block=BLOCK)
    assert even.summary["finding"] == "no sign of clusters or of a trend"


def test_frequent_flags_are_no_poisson_process_but_binomial(planted, flags, rng) -> None:
    steps = range(8, 68)
    run = planted({step: flags(rng.random(60 * BLOCK) < 0.5) for step in steps})
    table = training_order(run, block=BLOCK).table
    assert np.median(table["dispersion"].to_numpy()) == pytest.approx(0.5, abs=0.05)
    assert table["p_poisson"].to_numpy().min() > 0.5
    assert stats.kstest(table["p_binomial"].to_numpy(), "uniform").pvalue > 0.01


def test_clusters_and_trends_are_found(planted, flags, rng) -> None:
    n = 80 * BLOCK
    share = rng.gamma(2, 0.01, 80).repeat(BLOCK)
    rising = np.linspace(0.005, 0.06, n)
    even = np.full(n, 0.02)
    run = planted({8 + i: flags(rng.random(n) < p) for i, p in enumerate((even, share, rising))})
    study = training_order(run, block=BLOCK)
    row = dict(zip(("even", "cluster", "rise"), study.table.to_pylist(), strict=True))
    assert row["even"]["p_holm"] > 0.05 < row["even"]["p_trend"]
    assert row["cluster"]["p_holm"] < 1e-4
    assert row["cluster"]["dispersion"] > row["cluster"]["poisson_high"]
    assert row["rise"]["trend"] > 0.3
    assert row["rise"]["p_trend"] < 1e-4
    assert study.summary["clustered"] == 2
    assert "cluster in 2 of 3" in study.summary["finding"]


def test_the_numbers_are_those_of_the_textbook(planted, flags, rng) -> None:
    memorized = rng.random(9000) < 0.02
    row = training_order(planted({9: flags(memorized)}), block=BLOCK).table.to_pylist()[0]
    blocks = memorized[: 9000 // BLOCK * BLOCK].reshape(-1, BLOCK).sum(1)
    k, mean, variance = len(blocks), blocks.mean(), blocks.var(ddof=1)
    assert (row["model"], row["step"], row["blocks"]) == ("70m", 9, k)
    assert (row["sequences"], row["memorized"]) == (k * BLOCK, blocks.sum())
    assert row["mean"] == pytest.approx(mean)
    assert row["variance"] == pytest.approx(variance)
    assert row["dispersion"] == pytest.approx(variance / mean)
    assert row["p_poisson"] == pytest.approx(stats.chi2.sf((k - 1) * variance / mean, k - 1))
    q = 1 - mean / BLOCK
    binomial = stats.chi2.sf((k - 1) * variance / mean / q, k - 1)
    assert row["p_binomial"] == pytest.approx(binomial)
    assert row["poisson_high"] == pytest.approx(stats.chi2.ppf(0.975, k - 1) / (k - 1))


def test_the_details_are_the_counts_and_the_points_of_the_plot(planted, flags, rng) -> None:
    memorized = rng.random(40 * BLOCK) < 0.05
    study = training_order(planted({9: flags(memorized)}), block=BLOCK)
    counts = memorized.reshape(-1, BLOCK).sum(1)
    blocks = study.details["blocks"]
    assert blocks["first"].to_pylist() == list(range(0, 40 * BLOCK, BLOCK))
    assert blocks["memorized"].to_pylist() == counts.tolist()
    points = study.details["quantiles"]
    each = points["blocks"].to_numpy()
    assert np.repeat(points["memorized"].to_numpy(), each).tolist() == sorted(counts)
    expected = stats.poisson.ppf((np.arange(1, 41) - 0.5) / 40, counts.mean())
    assert np.repeat(points["poisson"].to_numpy(), each).tolist() == expected.tolist()
    assert np.all(points["low"].to_numpy() <= points["poisson"].to_numpy())
    assert np.all(points["poisson"].to_numpy() <= points["high"].to_numpy())


def test_only_what_was_seen_counts(planted, flags, rng) -> None:
    memorized = rng.random(4096) < 0.1
    memorized[1024:] = False  # not seen, not memorized
    columns = {1: flags(memorized), 0: flags(memorized)}
    row = {r["step"]: r for r in training_order(planted(columns), block=BLOCK).table.to_pylist()}
    assert row[1]["sequences"] == 1024
    assert row[1]["p_binomial"] > 0.001
    assert row[0]["sequences"] == row[0]["blocks"] == 0
    own = planted(columns, model="mine", on_hub=False)
    unknown = training_order(own, block=BLOCK, steps=1)
    assert unknown.table["sequences"].to_pylist() == [4096]
    assert unknown.table["p_binomial"][0].as_py() < 1e-6
    assert "batch" in unknown.summary["seen"]
    told = training_order(own, block=BLOCK, steps=1, batch=2048)
    assert told.table["sequences"].to_pylist() == [2048]
    assert "seen" not in told.summary


@pytest.mark.parametrize(
    ("rows", "blocks", "sequences"),
    [
        (np.arange(100, 300), 2, 128),  # [128, 192) and [192, 256)
        (np.arange(300, 100, -1), 2, 128),
        (np.arange(0, 640, 4), 10, 160),
        (np.arange(0, 640, 3), 10, 214),  # 21 or 22 in each
        (np.arange(10), 1, 10),
    ],
    ids=["parts at the ends", "backwards", "every fourth", "every third", "less than one"],
)
def test_blocks_are_whole(planted, flags, rows, blocks, sequences) -> None:
    memorized = np.isin(rows % 7, (0, 3))
    study = training_order(planted({9: flags(memorized)}, rows=rows), block=BLOCK)
    row = study.table.to_pylist()[0]
    assert (row["blocks"], row["sequences"]) == (blocks, sequences)
    told = study.details["blocks"].to_pylist()
    for block in told:
        inside = (rows >= block["first"]) & (rows < block["first"] + BLOCK)
        assert block["sequences"] == inside.sum()
        assert block["memorized"] == memorized[inside].sum()
    if blocks == 1:
        assert row["p_binomial"] is row["dispersion"] is None
        assert "too few sequences" in study.summary["finding"]


def test_nothing_or_all_memorized_is_no_finding(planted, flags) -> None:
    n = 10 * BLOCK
    run = planted({8: flags(np.zeros(n, dtype=bool)), 9: flags(np.ones(n, dtype=bool))})
    study = training_order(run, block=BLOCK)
    none, every = study.table.to_pylist()
    assert none["memorized"] == 0
    assert none["dispersion"] is none["p_poisson"] is none["p_binomial"] is None
    assert every["dispersion"] == 0
    assert every["p_binomial"] is None
    assert study.summary["finding"] == "nothing is memorized"
    study.figure()


def test_an_empty_run_says_so(planted) -> None:
    study = training_order(planted({}))
    assert len(study.table) == 0
    assert study.summary["finding"] == "no step is complete"
    study.figure()


def test_several_models_and_their_figure(planted, flags, rng, tmp_path: Path) -> None:
    runs = [
        planted({step: flags(rng.random(2048) < share) for step in (2, 4, 8)}, model=model)
        for model, share in (("70m", 0.02), ("12b", 0.06))
    ]
    study = training_order(runs, block=BLOCK)
    assert study.table["model"].to_pylist() == ["70m"] * 3 + ["12b"] * 3
    assert training_order(SweepResults(runs), block=BLOCK).table.equals(study.table)
    left, right = study.figure().axes
    assert "Poisson" in left.get_xlabel()
    assert len(right.lines) == 3  # two models, and the line at one
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == ["70m, step 8", "12b, step 8"]
    path = study.save_figure(tmp_path / "order.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(training_order(runs, steps="last").figure().axes) == 1


def test_incomplete_steps_are_told_and_marked(planted, flags, rng) -> None:
    run = planted({step: flags(rng.random(2048) < 0.1) for step in (2, 4, 8, 16)})
    (run.path / "parts/step=4/memorization-00000.parquet").unlink()
    study = training_order(run, block=BLOCK)
    assert study.table["step"].to_pylist() == [2, 8, 16]
    assert study.summary["incomplete"] == "70m at step 4"
    line = study.figure().axes[1].lines[0]
    drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert np.isnan(drawn[4])
    assert np.isfinite([drawn[step] for step in (2, 8, 16)]).all()
    assert "incomplete" not in training_order(run, block=BLOCK, steps=[2, 8]).summary


def test_wrong_input_is_told(planted, flags, tmp_path: Path) -> None:
    run = planted({8: flags(np.ones(200, dtype=bool))})
    without = planted(
        {8: {"perplexity": {"nll": np.ones(9), "tokens": np.ones(9), "nonfinite": np.zeros(9)}}},
        model="1b",
    )
    with pytest.raises(ArgumentError, match="--metrics memorization"):
        training_order([run, without])
    with pytest.raises(ArgumentError, match=rf"step 8 of 70m, {run.path} and {run.path}: "):
        training_order([run, run])
    with pytest.raises(UnknownStepError, match=f"the run of 70m in {run.path} has no .* step 9"):
        training_order(run, steps=9)
    with pytest.raises(ArgumentError, match="block is at least 1"):
        training_order(run, block=0)
    with pytest.raises(ArgumentError, match="block must be an int"):
        training_order(run, block=1.5)
    with pytest.raises(ArgumentError, match="level"):
        training_order(run, level=95)
    with pytest.raises(ArgumentError, match="at least one"):
        training_order([])
    with pytest.raises(ArgumentError, match="SweepResults"):
        training_order(tmp_path)
    with pytest.raises(ArgumentError, match="SweepResults"):
        training_order([str(tmp_path)])
