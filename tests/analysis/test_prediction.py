"""Precision, recall and correlation against plain numpy, and whose sequences are compared."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pythia_fast.analysis import predictability
from pythia_fast.analysis.agreement import correlation, proportion
from pythia_fast.errors import ArgumentError, UnknownStepError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def scored(memorized: np.ndarray, score: np.ndarray, flags) -> dict:
    columns = flags(memorized)["memorization"]
    return {"memorization-score": {"score": np.where(memorized, 1.0, score), **columns}}


def nested(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """What a large model has memorized, and a small one, nearly all of it part of that."""
    large = rng.random(n) < 0.05
    return large, (large & (rng.random(n) < 0.3)) | (rng.random(n) < 0.001)


def test_the_numbers_are_those_of_numpy(planted, flags, rng) -> None:
    large, small = nested(rng, 9000)
    easy = rng.random(9000)
    scores = (np.floor(32 * np.clip(easy + rng.normal(0, 0.2, 9000), 0, 0.99)) / 32 for _ in "ab")
    target = planted({9: scored(large, next(scores), flags)}, model="12b")
    predictor = planted({9: scored(small, next(scores), flags)}, model="70m")
    study = predictability(predictor, target)
    (row,) = study.table.to_pylist()
    assert (row["model"], row["step"], row["target"], row["target_step"]) == ("70m", 9, "12b", 9)
    assert row["sequences"] == 9000
    assert (row["memorized"], row["memorized_by_target"]) == (small.sum(), large.sum())
    both = (small & large).sum()
    assert row["both"] == both
    assert row["precision"] == pytest.approx(both / small.sum())
    assert row["recall"] == pytest.approx(both / large.sum())
    assert row["base_rate"] == pytest.approx(large.mean())
    assert row["correlation"] == pytest.approx(np.corrcoef(small, large)[0, 1])
    wilson = stats.binomtest(int(both), int(small.sum())).proportion_ci(0.95, "wilson")
    assert (row["precision_low"], row["precision_high"]) == pytest.approx(tuple(wilson))
    columns = [run.sequences["score"].to_numpy() for run in (predictor, target)]
    assert row["score_correlation"] == pytest.approx(np.corrcoef(*columns)[0, 1])
    assert row["correlation_low"] < row["correlation"] < row["correlation_high"]
    assert "70m at step 9: precision" in study.summary["best model"]


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.int64, st.shared(st.integers(1, 60), key="n"), elements=st.integers(-3, 3)),
    arrays(np.bool_, st.shared(st.integers(1, 60), key="n")),
)
def test_a_correlation_is_numpys_whatever_the_columns(x, y) -> None:
    found = correlation(x, y, 0.95)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert found == (None, None, None)
        return
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    if found.low is not None:
        assert -1 <= found.low <= found.value + 1e-12
        assert found.value - 1e-12 <= found.high <= 1


def test_who_agrees_in_all_correlates_by_one(rng) -> None:
    for share in (0.01, 0.3, 0.5):
        flags = rng.random(777) < share
        assert correlation(flags, flags, 0.95) == (pytest.approx(1, abs=1e-12), None, None)
        assert correlation(flags, ~flags, 0.95) == (pytest.approx(-1, abs=1e-12), None, None)


def test_the_interval_of_rare_flags_holds_what_it_promises(rng) -> None:
    def phi(p: np.ndarray) -> float:
        base = p[2] + p[3], p[1] + p[3]
        return (p[3] - base[0] * base[1]) / np.sqrt(np.prod([b * (1 - b) for b in base]))

    cells = np.array([0.979, 0.012, 0.001, 0.008])  # neither, only one, only the other, both
    true, held, fishers = phi(cells), [], []
    x, y = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for _ in range(400):
        counts = rng.multinomial(5000, cells)
        found = correlation(x.repeat(counts), y.repeat(counts), 0.95)
        held.append(found.low <= true <= found.high)
        ends = np.tanh(np.arctanh(found.value) + np.array([-1.96, 1.96]) / np.sqrt(5000 - 3))
        fishers.append(ends[0] <= true <= ends[1])
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert np.mean(fishers) < 0.6, "Fisher's own interval would do, then"


NEVER, SELDOM, OFTEN = 0.1, 1, 5  # how many are expected to be memorized by both


@pytest.mark.parametrize("sign", [1, -1], ids=["together", "apart"])
@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (20, 20, NEVER),
        (60, 60, SELDOM),
        (140, 140, OFTEN),
        (60, 60, OFTEN),
        (280, 280, 20),
        (600, 505, 500),
        (66, 65, 60),
        (2000, 20, 12),
    ],
)
def test_the_interval_holds_what_it_promises_however_few_are_shared(
    rng, one, other, both, sign
) -> None:
    cells = np.array([4000 - one - other + both, other - both, one - both, both]) / 4000
    shares = np.array([one, other]) / 4000
    true = (cells[3] - shares.prod()) / np.sqrt((shares * (1 - shares)).prod())
    x, y = np.array([0, 0, 1, 1]), sign * np.array([0, 1, 0, 1])
    held = []
    for counts in rng.multinomial(4000, cells, 300):
        found = correlation(x.repeat(counts) == 1, y.repeat(counts), 0.95)
        if found.low is not None:
            held.append(found.low <= sign * true + 1e-12 and sign * true - 1e-12 <= found.high)
    assert len(held) > 200
    assert np.mean(held) > 0.92


def test_flags_that_are_never_shared_may_yet_go_together() -> None:
    x, y = (np.isin(np.arange(10_000), some) for some in (range(30), range(30, 60)))
    found = correlation(x, y, 0.95)
    assert found.value == pytest.approx(-0.003, abs=1e-4)
    wilson = stats.binomtest(0, 30).proportion_ci(0.95, "wilson").high
    assert found.high == pytest.approx((wilson - 0.003) / 0.997)
    assert found.low == pytest.approx(found.value, abs=1e-3)


def test_only_sequences_of_both_count(planted, flags, rng) -> None:
    large, small = nested(rng, 3000)
    one, other = np.arange(3000), np.arange(3999, 999, -1)  # the second backwards
    data = {"address": "/data/pile.bin"}
    target = planted({9: flags(large)}, model="12b", rows=one, **data)
    predictor = planted({9: flags(small)}, model="70m", rows=other, tokens="others", **data)
    (row,) = predictability([predictor], target).table.to_pylist()
    assert row["sequences"] == 2000
    told = dict(zip(other.tolist(), small.tolist(), strict=True))
    assert row["both"] == sum(told[i] and large[i] for i in range(1000, 3000))


def test_other_data_are_not_joined_by_row_number(planted, flags, rng) -> None:
    large, small = flags(rng.random(3000) < 0.05), flags(rng.random(2000) < 0.05)
    for number, addresses in enumerate((("a.bin", "b.bin"), ("a.bin", None), (None, None))):
        target, other = (
            planted({9: each}, model="mine", name=f"{name}-{number}", tokens=name, address=address)
            for each, name, address in zip((large, small), "ab", addresses, strict=True)
        )
        if None not in addresses:
            with pytest.raises(ArgumentError, match=r"rows of b\.bin"):
                predictability(other, target)
        else:
            assert str(other.path) in predictability(other, target).summary["data"]
    same = planted({9: small}, model="mine", name="same", tokens="a")
    assert "data" not in predictability(same, target).summary


def test_first_is_of_what_was_seen_and_is_there(planted, flags, rng) -> None:
    columns = {step: flags(rng.random(4096) < 0.2) for step in (1, 2, 4, 8)}
    target = planted(columns, model="12b")
    with pytest.raises(ArgumentError, match=r"has seen 4,096 rows at step 4, less than first"):
        predictability([], target, step=4, first=5000)
    with pytest.raises(ArgumentError, match=r"ends at row 4,096 of the data, before first=5,000"):
        predictability([], target, first=5000)
    short = planted({8: flags(rng.random(2048) < 0.2)}, name="short")
    with pytest.raises(ArgumentError, match=r"short ends at row 2,048"):
        predictability(short, target, first=4096)
    own = planted(columns, model="mine", on_hub=False)
    with pytest.raises(ArgumentError, match="before first=999,999"):
        predictability([], own, first=999_999)
    every = np.arange(0, 4096, 4)
    strided = planted({s: flags(every % 3 == 0) for s in (4, 8)}, rows=every, name="strided")
    assert predictability([], strided, first=4096).table["sequences"].to_pylist() == [1024]


def test_an_earlier_checkpoint_foretells_what_it_has_seen(planted, flags, rng) -> None:
    n = 4096
    end = rng.random(n) < 0.2
    columns = {}
    for step in (1, 2, 4):
        known = end & (rng.random(n) < step / 4)
        columns[step] = flags(known if step < 4 else end)
    target = planted(columns, model="12b")
    rows = predictability((), target).table.to_pylist()
    assert [(row["model"], row["step"]) for row in rows] == [("12b", 1), ("12b", 2)]
    assert [row["sequences"] for row in rows] == [1024, 2048]
    assert rows[0]["memorized_by_target"] == end[:1024].sum()
    of_all = predictability([], target, first=2048)
    assert of_all.table["step"].to_pylist() == [2]
    assert of_all.table["sequences"].to_pylist() == [2048]
    assert "1 that had not seen" in of_all.summary["left out"]
    only = predictability([], target, earlier=None)
    assert len(only.table) == 0
    assert "no two checkpoints" in only.summary["finding"]
    middle = predictability([], target, step=2)
    assert middle.table["target_step"].to_pylist() == [2]
    own = planted(columns, model="mine", on_hub=False)
    unknown = predictability([], own)
    assert unknown.table["sequences"].to_pylist() == [n, n]
    assert "batch" in unknown.summary["seen"]
    assert predictability([], own, batch=512).table["sequences"].to_pylist() == [512, 1024]


def test_both_published_tables_in_one_call(planted, flags, rng, tmp_path: Path) -> None:
    n = 8 * 1024
    end = rng.random(n) < 0.2
    seen = np.arange(n) < 6 * 1024
    steps = {6: flags(end & seen & (rng.random(n) < 0.6)), 7: flags(end), 8: flags(end)}
    target = planted(steps, model="12b")
    small = [
        planted({8: flags(end & (rng.random(n) < share))}, model=model)
        for model, share in (("6.9b", 0.8), ("70m", 0.2))
    ]
    study = predictability([*small, target], target, first=6 * 1024)
    told = list(zip(study.table["model"].to_pylist(), study.table["step"].to_pylist(), strict=True))
    assert told == [("6.9b", 8), ("70m", 8), ("12b", 6), ("12b", 7)]
    assert set(study.table["sequences"].to_pylist()) == {6 * 1024}
    assert study.table["recall"].to_pylist() == pytest.approx([0.8, 0.2, 0.6, 1], abs=0.05)
    models, itself = study.figure().axes
    assert [tick.get_text() for tick in models.get_xticklabels()] == ["70m", "6.9b"]
    assert "12b itself" in itself.get_title()
    assert study.save_figure(tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_where_nothing_is_predicted_nothing_is_told(planted, flags) -> None:
    none, every = np.zeros(100, dtype=bool), np.ones(100, dtype=bool)
    target = planted({9: flags(every)}, model="12b")
    (row,) = predictability(planted({9: flags(none)}), target).table.to_pylist()
    assert row["precision"] is row["correlation"] is row["score_correlation"] is None
    assert row["recall"] == 0
    assert proportion(0, 0, 0.95) == (None, None, None)
    other = planted({9: flags(none)}, model="1b")
    study = predictability(target, other)
    assert study.summary["finding"] == "the target has memorized nothing"
    assert study.table["recall"].to_pylist() == [None]
    study.figure()


def test_a_figure_shows_any_name_as_it_is(planted, flags, rng, tmp_path: Path) -> None:
    large, small = nested(rng, 400)
    columns = {s: flags(each) for s, each in ((1, small), (2, small), (4, large))}
    target = planted(columns, model="_a$b\\frac", on_hub=False, name="odd")
    other = planted({4: flags(small)}, model="$\\x$", on_hub=False, name="other")
    figure = predictability([other], target).figure()
    assert figure.axes[0].get_title() == "$\\x$"
    assert predictability([other], target).save_figure(tmp_path / "f.svg").stat().st_size > 1000


def test_incomplete_steps_are_told_and_marked(planted, flags, rng) -> None:
    columns = {step: flags(rng.random(2048) < 0.3) for step in (2, 4, 8, 16, 32)}
    target = planted(columns, model="12b")
    for step in (4, 32):
        (target.path / f"parts/step={step}/memorization-00000.parquet").unlink()
    study = predictability([], target)
    assert study.table["step"].to_pylist() == [2, 8]
    assert study.summary["incomplete"] == "12b at steps 4, 32"
    (axes,) = study.figure().axes
    assert any("1 step is incomplete" in text.get_text() for text in axes.texts), "before 16"


def test_empty_runs_say_so(planted, flags) -> None:
    empty, full = planted({}, model="1b"), planted({9: flags(np.ones(50, dtype=bool))})
    for study in (predictability(empty, full), predictability(full, empty)):
        assert len(study.table) == 0
        assert "no two checkpoints" in study.summary["finding"]
        study.figure()


def test_two_runs_of_one_model_at_one_step_are_refused(planted, flags) -> None:
    runs = [planted({4: flags([1, 0])}, name=name, model="70m") for name in "ab"]
    target = planted({4: flags([1, 0])}, name="c", model="12b")
    with pytest.raises(ArgumentError, match=r"two runs have step 4 of 70m, .*/a and .*/b: "):
        predictability(runs, target)


def test_what_cannot_be_compared_is_refused(planted, flags) -> None:
    own = flags(np.ones(50, dtype=bool))
    target = planted({9: own}, model="12b")
    with pytest.raises(ArgumentError, match="other texts"):
        predictability(planted({9: own}, model="70m-deduped"), target)
    with pytest.raises(ArgumentError, match="different token data"):
        predictability(planted({9: own}, tokens="other", name="other"), target)
    longer = {"settings": {"prompt": 64, "continuation": 32}}
    with pytest.raises(ArgumentError, match="differ in length"):
        predictability(planted({9: own}, settings=longer, name="longer"), target)
    plain = planted(
        {9: {"perplexity": {"nll": np.ones(50), "tokens": np.ones(50), "nonfinite": np.zeros(50)}}},
        name="plain",
    )
    with pytest.raises(ArgumentError, match="--metrics memorization"):
        predictability(plain, target)
    with pytest.raises(UnknownStepError):
        predictability([], target, step=8)
    with pytest.raises(ArgumentError, match="first is at least 1"):
        predictability([], target, first=0)
    with pytest.raises(ArgumentError, match="SweepResults"):
        predictability([], "12b")
