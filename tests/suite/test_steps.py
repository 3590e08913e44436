import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, UnknownStepError
from pythia_fast.suite import STEPS, STEPS_V0, parse_steps
from pythia_fast.suite.steps import TOKENS_PER_STEP, check_steps, log_spaced, nearest_steps

LOG = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOG_THOUSANDS = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 143_000)


def test_the_suite_s_steps():
    assert len(STEPS) == 154
    assert len(STEPS_V0) == 143
    assert STEPS[:12] == (*LOG, 1_000)
    assert list(STEPS[11:]) == list(STEPS_V0) == [1_000 * k for k in range(1, 144)]
    assert TOKENS_PER_STEP == 2_097_152


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        (0, (0,)),
        ([512, 0, 512], (0, 512)),
        ((1, 2), (1, 2)),
        ({4}, (4,)),
        (range(1_000, 143_001, 1_000), STEPS_V0),
        (np.array([2_000, 1_000]), (1_000, 2_000)),
        (np.int64(8), (8,)),
        ((step for step in (8, 4)), (4, 8)),
        ("all", STEPS),
        ("ALL", STEPS),
        ("last", (143_000,)),
        ("log", LOG + LOG_THOUSANDS),
        ("0", (0,)),
        ("0,512,1000", (0, 512, 1_000)),
        (" 1000 , 0 ", (0, 1_000)),
        ("1000:143001:1000", STEPS_V0),
        ("1000:3000:1000", (1_000, 2_000)),
        ("1000:3000", (1_000, 2_000)),
        (":5", (0, 1, 2, 4)),
        ("142000:", (142_000, 143_000)),
        (":", STEPS),
        ("::1000", (0, *STEPS_V0)),
        ("0:9999999:1000", (0, *STEPS_V0)),
        ("0,512,140000:143001:1000,last", (0, 512, 140_000, 141_000, 142_000, 143_000)),
        ("log,3000", tuple(sorted({*LOG, *LOG_THOUSANDS, 3_000}))),
    ],
)
def test_ways_to_choose(asked, steps):
    assert parse_steps(asked, STEPS) == steps


def test_the_result_holds_plain_ints():
    chosen = parse_steps(np.array([0, 1], dtype=np.uint16), STEPS)
    assert [type(step) for step in chosen] == [int, int]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (3, "step 3; the nearest: 2 and 4"),
        (1_500, "step 1500; the nearest: 1000 and 2000"),
        (144_000, "step 144000; the nearest: 143000 "),
        ("999", "step 999; the nearest: 512 and 1000"),
        ([0, 3, 1, 5], "step 3; .*; nor of 5$"),
        ("0,7,1,999", "step 7; .*; nor of 999$"),
        ("0,7,1000:4000:500", "step 7; .*; nor of 1500, 2500, 3500$"),
        ("0:10:2", "step 6; the nearest: 4 and 8"),
        ("500:3000:500", "step 500;"),
        (range(10**15), "step 3; .*nor of 5, 6, 7, 9, and perhaps more"),
        (itertools.count(), "perhaps more"),
        ("1000,1001", "step 1001"),
    ],
)
def test_an_unknown_step_is_refused_with_the_nearest(asked, message):
    with pytest.raises(UnknownStepError, match=message) as caught:
        parse_steps(asked, STEPS)
    assert isinstance(caught.value, LookupError)
    assert "154 checkpoints from 0 to 143000" in str(caught.value)


@pytest.mark.parametrize("text", ["", "0,,1", "many", "-1", "0:9:0", "1:2:3:4", "1.5", "log,x"])
def test_a_text_that_is_no_choice_is_known_without_a_series(text):
    with pytest.raises(ArgumentError):
        check_steps(text)


@pytest.mark.parametrize("text", ["all", "log", "last", "7", "3:", "5:2", "0:9:2,last, LOG"])
def test_a_choice_of_steps_that_may_be_there_is_one(text):
    check_steps(text)


def test_the_series_is_named_where_the_caller_knows_it():
    with pytest.raises(UnknownStepError, match=r"^70m has no checkpoint of step 3; .*; nor of 5$"):
        parse_steps("3,4,5", STEPS, series="70m")
    with pytest.raises(ArgumentError, match=r"checkpoints from 0 to 143000 of 70m$"):
        parse_steps("3:4", STEPS, series="70m")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (True, "bool True"),
        ([0, False], "bool False"),
        (1000.0, "not 1000.0"),
        ([0, 1.5], "not 1.5"),
        (np.array([1.0]), "not np.float64"),
        (np.array([True]), "a step is an int"),
        (None, "not None"),
        (["all"], "not 'all'"),
        (-1, "not negative, got -1"),
        ([], "chooses none"),
        (range(0), "chooses none"),
        ("", "no choice of steps"),
        (",", "no choice of steps"),
        ("0,,1", "no choice of steps"),
        ("some", "numbers, all, log, last, start:stop:stride"),
        ("1e3", "no choice"),
        ("1_000", "no choice"),
        ("-1", "no choice"),
        ("-5:", "no choice"),
        ("0:10:-1", "no choice"),
        ("0:10:0", "stride"),
        ("0:1:2:3", "no choice"),
        ("step1000", "no choice"),
        ("\N{FULLWIDTH DIGIT TWO}", "no choice"),
        ("10:11", "chooses none"),
        ("2000:1000", "chooses none"),
        ("2000:1000:1000", "chooses none"),
    ],
)
def test_what_is_no_choice_of_steps(asked, message):
    with pytest.raises(ArgumentError, match=message):
        parse_steps(asked, STEPS)


def test_a_series_without_checkpoints():
    with pytest.raises(ArgumentError, match="no checkpoints"):
        parse_steps("all", ())


def test_a_missing_start_is_not_skipped_silently():
    with pytest.raises(UnknownStepError, match="step 0; the nearest: 1000"):
        parse_steps("0:143001:1000", STEPS_V0)
    assert parse_steps("::1000", STEPS_V0) == STEPS_V0


def test_log_of_other_series():
    assert log_spaced(STEPS_V0) == LOG_THOUSANDS
    assert log_spaced([7]) == (7,)
    assert log_spaced([0, 600]) == (0, 600)
    assert log_spaced(range(100, 1_001, 100)) == (100, 200, 400, 800, 1_000)
    assert log_spaced([0, 1, 2, 4, 8, 16, 32, 64, 100, 128, 200, 256, 300, 400, 512, 600]) == (
        *(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600),
    )


@given(st.integers(0, 200_000), st.none() | st.integers(0, 200_000), st.none() | st.integers(1, 3))
def test_slices_of_a_gapless_series_are_python_s(start, stop, stride):
    steps = range(50)
    expected = tuple(steps[start % 60 : None if stop is None else stop % 60 : stride])
    text = f"{start % 60}:{'' if stop is None else stop % 60}:{stride or ''}"
    if expected:
        assert parse_steps(text, steps) == expected
    else:
        with pytest.raises(ArgumentError, match="chooses none"):
            parse_steps(text, steps)


@given(st.integers(0, 145_000), st.integers(0, 145_000), st.integers(1, 5_000))
def test_a_stride_means_the_range_whether_or_not_it_exists(start, stop, stride):
    wanted = range(start, min(stop, 143_001), stride)
    text = f"{start}:{stop}:{stride}"
    if not wanted:
        with pytest.raises(ArgumentError):
            parse_steps(text, STEPS)
    elif set(wanted) <= set(STEPS):
        assert parse_steps(text, STEPS) == parse_steps(wanted, STEPS) == tuple(wanted)
    else:
        with pytest.raises(UnknownStepError):
            parse_steps(text, STEPS)


@given(st.lists(st.sampled_from(STEPS), min_size=1))
def test_numbers_and_their_text_choose_the_same_sorted_and_once(steps):
    chosen = parse_steps(steps, STEPS)
    assert chosen == tuple(sorted(set(steps)))
    assert parse_steps(",".join(map(str, steps)), STEPS) == chosen


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=50))
def test_log_is_part_of_the_series_with_both_ends_and_growing(series):
    available = sorted(series)
    chosen = log_spaced(available)
    assert set(chosen) <= series
    assert (chosen[0], chosen[-1]) == (available[0], available[-1])
    assert list(chosen) == sorted(set(chosen))
    inner = chosen[:-1] if len(chosen) > 1 else chosen
    assert all(after >= 1.9 * before for before, after in itertools.pairwise(inner))


@given(st.integers(-10, 20_000), st.sets(st.integers(0, 10_000), min_size=1, max_size=50))
def test_nearest_steps_enclose(step, series):
    nearest = nearest_steps(step, series)
    assert set(nearest) <= series
    below = max((s for s in series if s <= step), default=None)
    above = min((s for s in series if s > step), default=None)
    assert nearest == tuple(s for s in (below, above) if s is not None)
