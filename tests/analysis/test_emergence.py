"""The effect of having seen a sequence: planted, found, and found in a real training."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import pythia_fast
from pythia_fast.analysis import emergence
from pythia_fast.analysis.emerging import MEASURES
from pythia_fast.analysis.emerging_effects import effects
from pythia_fast.analysis.moments import Moments
from pythia_fast.analysis.pooling import pooled
from pythia_fast.demo.recipe import Recipe
from pythia_fast.demo.training import train
from pythia_fast.errors import ArgumentError, UnknownStepError
from pythia_fast.series.write import write_checkpoint

STEPS = (0, 2, 4, 8)
ROWS = 10 * 1024  # two steps' worth are never seen
TOKENS = 50


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def losses(rng: np.random.Generator, effect: float, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Sequences differ, all learn, and what was seen falls by `effect`, half of which stays."""
    hard = rng.normal(3, 0.5, len(rows))
    met = rows // 1024 + 1
    found = {}
    for step in STEPS:
        since = np.where(met <= step, step - met, np.inf)
        seen = effect * (0.5 + 0.5 * np.exp(-since / 2)) * np.isfinite(since)
        found[step] = hard + 1 / (1 + step) - seen + rng.normal(0, 0.05, len(rows))
    return found


def of_loss(values: dict[int, np.ndarray]) -> dict:
    counts = np.full(len(next(iter(values.values()))), TOKENS)
    rest = {"tokens": counts, "nonfinite": np.zeros(len(counts), np.int64)}
    return {s: {"perplexity": {"nll": v * TOKENS} | rest} for s, v in values.items()}


def test_a_planted_effect_is_found_with_its_time(planted, rng) -> None:
    values = losses(rng, 0.2, np.arange(ROWS))
    study_run = planted(of_loss(values))
    study = emergence(study_run)
    rows = study.table.to_pylist()
    assert len(rows) == 3 * 3
    for row in rows:
        if row["step"] < row["seen_after"]:
            assert row["since"] == row["step"] - row["seen_after"] < 0
            assert row["p"] > 0.001, "nothing happens before"
            assert abs(row["effect"]) < 4 * row["stderr"]
            continue
        assert row["since"] == row["step"] - row["seen_by"] >= 0
        met = np.arange(row["seen_after"] + 1, row["seen_by"] + 1)
        true = -0.2 * (0.5 + 0.5 * np.exp(-(row["step"] - met) / 2)).mean()
        assert row["low"] - row["stderr"] < true < row["high"] + row["stderr"]
        assert row["p"] < 1e-20
    assert re.fullmatch(r"-0\.1\d* \(s\.e\. 0\.0\d+\)", study.summary["loss once seen"])
    half = [emergence(study_run, level=level).figure().axes[1] for level in (0.5, 0.95)]
    widths = [np.ptp(axes.collections[0].get_paths()[0].vertices[:, 1]) for axes in half]
    assert widths[1] > widths[0]
    assert "50% intervals" in half[0].get_ylabel()


def test_the_numbers_are_those_of_scipy_sequence_by_sequence(planted, rng) -> None:
    values = losses(rng, 0.2, np.arange(ROWS))
    met = np.arange(ROWS) // 1024 + 1
    for row in emergence(planted(of_loss(values)), level=0.9).table.to_pylist():
        after, by, step = row["seen_after"], row["seen_by"], row["step"]
        cohort = (met > after) & (met <= by)
        unseen = met > max(by, step)
        change = values[step] - values[after]
        test = stats.ttest_ind(change[cohort], change[unseen], equal_var=False)
        interval = test.confidence_interval(0.9)
        assert (row["sequences"], row["unseen"]) == (cohort.sum(), unseen.sum())
        effect = change[cohort].mean() - change[unseen].mean()
        assert row["effect"] == pytest.approx(effect, rel=1e-9, abs=1e-10)
        assert (row["low"], row["high"]) == pytest.approx(tuple(interval), rel=1e-7, abs=1e-9)
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-5, abs=1e-300)
        assert row["before"] == pytest.approx(values[after][cohort].mean())
        assert row["after"] == pytest.approx(values[step][cohort].mean())
        assert row["unseen_before"] == pytest.approx(values[after][unseen].mean())
        assert row["unseen_after"] == pytest.approx(values[step][unseen].mean())


def test_without_an_effect_p_is_uniform(planted, rng) -> None:
    p = []  # one of each run: those of a run share the unseen
    rows = np.arange(0, ROWS, 16)
    for number in range(48):
        run = planted(of_loss(losses(rng, 0.0, rows)), rows=rows, name=f"null-{number}")
        told = emergence(run).table.to_pylist()
        p.append(next(row["p"] for row in told if row["step"] == row["seen_by"] == STEPS[-1]))
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_scores_flags_and_positions(planted, flags, rng) -> None:
    met = np.arange(ROWS) // 1024 + 1
    columns = {}
    for step in STEPS:
        memorized = (met <= step) & (rng.random(ROWS) < 0.1)
        score = np.where(memorized, 1.0, 0.25)
        columns[step] = {"memorization-score": flags(memorized)["memorization"] | {"score": score}}
    run = planted(columns)
    study = emergence(run, bins=5)
    assert set(study.table["measure"].to_pylist()) == {"score", "memorized"}
    for row in study.table.to_pylist():
        expected = 0 if row["step"] < row["seen_after"] else 0.1
        scale = 0.75 if row["measure"] == "score" else 1
        assert row["effect"] == pytest.approx(expected * scale, abs=0.04)
        if row["stderr"] is None:
            assert row["effect"] == 0
        else:
            assert row["stderr"] > 0
            assert row["low"] < expected * scale + 0.01
            assert row["high"] > expected * scale - 0.01
    positions = study.details["positions"].to_pylist()
    assert len(positions) == 2 * 3 * 5
    for row in positions:
        inside = (met >= row["from_step"]) & (met <= row["to_step"])
        name = row["measure"]
        values = {s: c["memorization-score"][name].astype(float) for s, c in columns.items()}
        change = (values[row["step"]] - values[0])[inside]
        assert row["sequences"] == inside.sum()
        assert row["change"] == pytest.approx(change.mean(), abs=1e-12)
        assert row["stderr"] == pytest.approx(change.std(ddof=1) / inside.sum() ** 0.5, abs=1e-9)
    alone = emergence(run, measures="memorized", steps=[0, 8])
    assert alone.table["measure"].to_pylist() == ["memorized"]


def test_of_rare_flags_the_interval_is_that_of_two_proportions(rng) -> None:
    seen = np.repeat([2, 50], [128, 2000])
    true, held, told = 0.01 - 0.005, [], {}
    for _ in range(150):
        flags = np.zeros((2, 2128))
        flags[1] = rng.random(2128) < np.where(seen == 2, 0.01, 0.005)
        moments = Moments(np.array([0, 4]), np.array([1, 100]), 0.0)
        moments.add(seen, flags)
        (row,) = effects(moments, 0.95, flags=True)
        held.append(row["low"] <= true <= row["high"])
        counts = int(flags[1, seen == 2].sum()), int(flags[1, seen == 50].sum())
        assert moments.turned(slice(1, 2), 0, 1) == (counts[0], 0)
        told[counts] = row["low"], row["high"]
    assert np.mean(held) > 0.9
    few = {c: ends for c, ends in told.items() if c[0] < 5}
    (one, other), ends = next(iter(few.items()))
    wilson = [
        stats.binomtest(k, n).proportion_ci(0.95, "wilson") for k, n in ((one, 128), (other, 2000))
    ]
    p, q = one / 128, other / 2000
    low = p - q - np.hypot(p - wilson[0].low, wilson[1].high - q)
    high = p - q + np.hypot(wilson[0].high - p, q - wilson[1].low)
    assert ends == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize("count", [5, 40, 1000])
def test_what_never_varies_has_no_spread_however_sums_are_rounded(count) -> None:
    seen = np.repeat(np.arange(1, 13), count)
    values = np.stack([0.1 + 0.3 * (seen <= step) for step in (0, 4, 8)])
    of_score = Moments(np.array([0, 4, 8]), np.array([1, 13]))
    of_score.add(seen, values)
    for row in effects(of_score, 0.95, flags=False):
        assert row["effect"] == pytest.approx(0.3 * (row["step"] >= row["seen_by"]))
        assert row.get("stderr") is row.get("low") is row.get("p") is None
    flags = Moments(np.array([0, 4, 8]), np.array([1, 13]), 0.0)
    flags.add(seen, (values > 0.2).astype(float))
    for row in effects(flags, 0.95, flags=True):
        assert row["low"] < row["effect"] + 1e-9
        assert row["high"] - row["low"] > 0.1 / count
        if row["step"] >= row["seen_by"]:
            assert row["p"] < 1e-3
        else:
            assert row["p"] == 1


def test_the_few_that_turn_both_ways_are_not_told() -> None:
    moments = Moments(np.array([0, 4]), np.array([1, 100]), 0.0)
    before, after = np.zeros((2, 200))
    before[[3, 150]] = after[[5, 160]] = 1
    moments.add(np.repeat([2, 50], 100), np.stack([before, after]))
    (row,) = effects(moments, 0.95, flags=True)
    assert moments.turned(slice(1, 2), 0, 1) == (1, 1)
    assert row["effect"] == 0
    assert row["stderr"] is row["low"] is row["high"] is row["p"] is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pythia_fast.SweepResult:
    """A real model, trained for 24 steps of 4 rows of noise, and asked about 120 more rows."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = Recipe(
        steps=24,
        batch_rows=4,
        tokens=63,
        repetitions=(0,),
        canaries_each=1,
        layers=1,
        width=48,
        heads=4,
        learning_rate=3e-3,
        warm_up_steps=10,
        decay_steps=1,
        save_every=8,
    )
    rows = np.random.default_rng(0).integers(0, 160, (4 * 24 + 120, 64))

    def save(step: int, weights: dict[str, torch.Tensor]) -> None:
        write_checkpoint(folder / "trained" / f"step{step}", weights, recipe.architecture)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(recipe, rows.astype(np.uint16), save, limit_s=200, progress=False)
    finally:
        torch.set_num_threads(before)
    return pythia_fast.sweep(
        folder / "trained",
        [0, 8, 16, 24],
        tokens=rows,
        sequences=len(rows),
        out=folder / "run",
        dtype="float32",
        progress=False,
    )


def test_a_real_model_keeps_what_it_has_just_seen(trained, tmp_path: Path) -> None:
    study = emergence(trained, batch=4, bins=24)
    rows = study.table.to_pylist()
    at_once = [row for row in rows if row["step"] == row["seen_by"]]
    assert [row["seen_by"] for row in at_once] == [8, 16, 24]
    for row in at_once:
        assert (row["sequences"], row["unseen"]) == (32, 216 - 4 * row["step"])
        assert row["effect"] < -0.04
        assert row["p"] < 1e-6
    before = [row for row in rows if row["step"] < row["seen_after"]]
    effect, error = pooled(before)
    assert abs(effect) < 3 * error
    assert min(row["p"] for row in before) > 0.01
    assert study.save_figure(tmp_path / "real.svg").read_text().count("<svg") == 1


def test_the_figure_has_a_row_for_each_measure_that_moves(planted, flags, rng) -> None:
    columns = of_loss(losses(rng, 0.2, np.arange(ROWS)))
    for of_step in columns.values():
        of_step |= flags(np.zeros(ROWS, dtype=bool))
    runs = [planted(columns), planted(columns, model="12b")]
    study = emergence(runs)
    left, right = study.figure().axes
    assert "loss" in left.get_ylabel()
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert names == ["70m", "12b"]
    assert "loss of 12b once seen" in study.summary
    with pytest.raises(ArgumentError, match=rf"two runs are of 70m, {runs[0].path} and "):
        emergence([runs[0], runs[0]])


def test_values_that_are_not_finite_are_left_out_and_counted(planted, rng) -> None:
    values = losses(rng, 0.2, np.arange(ROWS))
    values[4][[7, 5000]] = np.nan, np.inf
    study = emergence(planted(of_loss(values)))
    assert study.table["sequences"].to_pylist()[0] == 2047
    assert "2 sequences" in study.summary["left out"]
    assert np.isfinite(study.table["effect"].to_numpy()).all()


def test_where_all_was_seen_there_is_nothing_to_compare_with(planted, rng) -> None:
    values = {s: v[: 8 * 1024] for s, v in losses(rng, 0.2, np.arange(ROWS)).items()}
    study = emergence(planted(of_loss(values), name="all"), steps=[0, 8])
    assert study.table["effect"].to_pylist() == [None]
    assert "never seen" in study.summary["finding"]
    study.figure()
    late = emergence(planted(of_loss(values), name="late", rows=ROWS + np.arange(8192)))
    assert len(late.table) == 0
    assert "seen between" in late.summary["finding"]


def test_empty_runs_say_so(planted, rng) -> None:
    study = emergence(planted({}))
    assert len(study.table) == 0
    assert "no two complete steps" in study.summary["finding"]
    study.figure()
    one = {8: losses(rng, 0, np.arange(ROWS))[8]}
    assert len(emergence(planted(of_loss(one), name="one")).table) == 0


def test_wrong_input_is_told(planted, flags, rng) -> None:
    columns = of_loss(losses(rng, 0.2, np.arange(ROWS)))
    run = planted(columns)
    with pytest.raises(ArgumentError, match="no measure 'scores'; near is score"):
        emergence(run, measures=["scores"])
    with pytest.raises(ArgumentError, match="memorization-score"):
        emergence(run, measures="score")
    with pytest.raises(ArgumentError, match="give `batch`"):
        emergence(planted(columns, model="mine", on_hub=False))
    with pytest.raises(UnknownStepError):
        emergence(run, steps=[3])
    with pytest.raises(ArgumentError, match="bins"):
        emergence(run, bins=0)
    assert set(MEASURES) == {"loss", "score", "memorized"}
