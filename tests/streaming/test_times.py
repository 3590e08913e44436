"""Seconds of each stage, and which one is waited for."""

import dataclasses

import pytest

from pythia_fast.streaming.times import Bottleneck, LoadTimes, times_table


def test_what_a_part_does_not_say_is_zero() -> None:
    assert LoadTimes.from_provenance({"load_s": 3.0, "wait_s": 1.5}) == LoadTimes(wait_s=1.5)
    some = LoadTimes(*range(1, 8), received_bytes=9)
    assert LoadTimes.from_provenance(some.to_dict() | {"model": "x"}) == some


def test_the_table_has_a_row_a_step_with_all_loads() -> None:
    loads = [LoadTimes(*range(1, 8), received_bytes=9), LoadTimes(download_s=10.0)]
    table = times_table({3: 2.5, 4: 0.5}, {3: loads, 4: [LoadTimes()]})
    assert table.column_names == [
        *("step", "download_s", "room_s", "verify_s", "open_s", "read_s", "copy_s"),
        *("compute_s", "wait_s", "received_bytes"),
    ]
    names = {field.name for field in dataclasses.fields(LoadTimes)} | {"step", "compute_s"}
    assert set(table.column_names) == names
    first, second = table.to_pylist()
    assert tuple(first.values()) == (3, 11.0, 2.0, 3.0, 4.0, 5.0, 6.0, 2.5, 7.0, 9)
    assert tuple(second.values()) == (4, *[0.0] * 6, 0.5, 0.0, 0)


FETCHED = {"received_bytes": 1}


@pytest.mark.parametrize(
    ("times", "computed_s", "stage"),
    [
        (LoadTimes(download_s=9, open_s=9, read_s=1, wait_s=0.1, **FETCHED), 10.0, "compute"),
        (LoadTimes(download_s=9, open_s=9, read_s=1, wait_s=8, **FETCHED), 2.0, "download"),
        (LoadTimes(download_s=9, open_s=1, read_s=5, wait_s=4, **FETCHED), 2.0, "read"),
        (LoadTimes(download_s=2, room_s=8, open_s=9, wait_s=8, **FETCHED), 2.0, "disk budget"),
        (LoadTimes(verify_s=4, open_s=4, read_s=1, wait_s=4), 1.0, "verify"),
        (LoadTimes(verify_s=4, open_s=0.1, read_s=1, wait_s=4), 1.0, "verify"),
        (LoadTimes(read_s=1, copy_s=3, wait_s=4), 1.0, "copy"),
        (LoadTimes(), 0.0, "compute"),
    ],
)
def test_the_bottleneck_is_what_computing_waits_for(
    times: LoadTimes, computed_s: float, stage: str
) -> None:
    bottleneck = Bottleneck()
    assert bottleneck.stage is bottleneck.words() is None
    bottleneck.loaded(LoadTimes(copy_s=100, wait_s=100))  # the first is always waited for
    assert bottleneck.stage is None
    bottleneck.computed(computed_s)
    bottleneck.loaded(times)
    assert bottleneck.stage == stage
    words = bottleneck.words()
    assert words is not None
    assert words.startswith(f"bound by {stage}")


def test_the_words_say_how_much_is_waited() -> None:
    bottleneck = Bottleneck()
    bottleneck.loaded(LoadTimes())
    bottleneck.loaded(LoadTimes(download_s=9, open_s=9, wait_s=3, received_bytes=1))
    bottleneck.computed(1.0)
    assert bottleneck.words() == "bound by download (waits 75% of the time)"
