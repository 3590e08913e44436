"""Sizes as users write them."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.quantities import (
    counted,
    duration,
    parse_bytes,
    parse_bytes_per_s,
    parse_flop_per_s,
    sized,
)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        *((1, 1), (10**15, 10**15), ("1", 1), ("12B", 12), ("1kB", 1000), ("2 KB", 2000)),
        *(("500GB", 500 * 10**9), ("500g", 500 * 10**9), (" 1.5 TiB ", 3 * 2**39)),
        *(("0.1MB", 10**5), ("3PB", 3 * 10**15), ("7Ki", 7 * 1024), ("4.35GB", 4_350_000_000)),
    ],
)
def test_sizes(text: int | str, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "1e9", "5 XB", "5 iB", "1,5GB", "1.GB", "٣GB", 0, -5, 1.5, None, True, "0.1B"],
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ArgumentError, match="500GB"):
        parse_bytes(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", [0, "0", "0 GB"])
def test_nothing_where_that_is_a_size(nothing: int | str) -> None:
    assert parse_bytes(nothing, least_bytes=0) == 0
    with pytest.raises(ArgumentError, match="less than"):
        parse_bytes(nothing)


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (166_028_241, "166 MB")),
        *((999_499, "999 kB"), (999_500, "1 MB"), (3.74e12, "3.74 TB"), (2.5e15, "2.5e+03 TB")),
    ],
)
def test_words(nbytes: float, words: str) -> None:
    assert sized(nbytes) == words


@pytest.mark.parametrize(
    ("elapsed_s", "text"),
    [
        (0.25, "0.25 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3_700, "1 h 1 min"),
        (183_600, "2 d 3 h"),
        (5, "5 s"),
    ],
)
def test_durations(elapsed_s: float, text: str) -> None:
    assert duration(elapsed_s) == text


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        (1, 1),
        (2.5e9, 2.5e9),
        ("1GB/s", 1e9),
        ("1GB", 1e9),
        ("10 MiB / s", 10 * 2**20),
        ("80M/s", 8e7),
    ],
)
def test_rates_in_bytes(text: float | str, bytes_per_s: float) -> None:
    assert parse_bytes_per_s(text) == bytes_per_s


@pytest.mark.parametrize(
    ("text", "if_bits", "if_bytes"),
    [
        *(("10Gb/s", "1.25GB/s", "10GB/s"), ("100 Mbit/s", "12.5MB/s", "100MB/s")),
        *(("1.6Tbps", "0.2TB/s", "1.6TB/s"), ("80mb", "10mB/s", "80mB/s"), ("8b", "1B/s", "8B/s")),
        *(("16 Gibit / s", "2GiB/s", "16GiB/s"), ("8 bits/s", "1B/s", "8B/s")),
    ],
)
def test_a_rate_that_may_be_in_bits(text: str, if_bits: str, if_bytes: str) -> None:
    """Both readings are said, and each of them is understood."""
    with pytest.raises(ArgumentError, match="bits") as caught:
        parse_bytes_per_s(text)
    for reading in (if_bits, if_bytes):
        assert f"'{reading}'" in str(caught.value)
    assert parse_bytes_per_s(if_bytes) == 8 * parse_bytes_per_s(if_bits)


@pytest.mark.parametrize("rate", [10**9, 1e9, "1GB/s"])
def test_a_whole_rate_is_an_int(rate: float | str) -> None:
    assert repr(parse_bytes_per_s(rate)) == "1000000000"


@pytest.mark.parametrize("rate", ["", "fast", "0GB/s", "1GB/h", "0", 0, -1.0])
def test_what_is_said_of_a_rate_speaks_of_rates(rate: float | str) -> None:
    with pytest.raises(ArgumentError, match=r"rate in bytes a second.*'1GB/s'") as caught:
        parse_bytes_per_s(rate)
    assert "500GB" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flop_per_s"),
    [
        *((1, 1), (4e14, 4e14), ("400TFLOP/s", 4e14), ("1.5 tflops", 1.5e12), ("200G", 2e11)),
        *(("3 PFLOP / s", 3e15), ("12", 12.0)),
    ],
)
def test_rates_in_operations(text: float | str, flop_per_s: float) -> None:
    assert parse_flop_per_s(text) == pytest.approx(flop_per_s)


@pytest.mark.parametrize("parse", [parse_bytes_per_s, parse_flop_per_s])
@pytest.mark.parametrize(
    "value",
    ["", "fast", "-1GB/s", "0", "1GB/h", "1XFLOP/s", 0, -1.0, math.inf, math.nan, True, None],
)
def test_what_is_no_rate(parse: Callable[[Any], float], value: object) -> None:
    with pytest.raises(ArgumentError, match=r"GB|TFLOP"):
        parse(value)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 steps"),
        (1, "1 step"),
        (2, "2 steps"),
        (1234, "1,234 steps"),
        (1.0, "1 step"),
        (0.5, "0.5 steps"),
        (3.0, "3 steps"),
    ],
)
def test_things_are_counted(count: float, words: str) -> None:
    assert counted(count, "step") == words
