"""Peaks, and the share of them."""

from roofline import Roofline, Work, measure_roofline, parse

AMX = {
    "fma_float32_flop_per_s": 1e9,
    "avx512_bfloat16_flop_per_s": 5e8,
    "amx_bfloat16_flop_per_s": 8e9,
    "memory_read_byte_per_s": 1e8,
}


def test_products_in_bfloat16_run_where_they_are_fastest():
    roof = Roofline(AMX, threads=1)
    assert roof.peak("bfloat16") == ("amx_bfloat16", 8e9)
    assert roof.peak("split-bf16") == ("amx_bfloat16", 8e9)
    assert roof.peak("float32") == ("fma_float32", 1e9)
    without = {name: rate for name, rate in AMX.items() if not name.startswith("amx")}
    assert Roofline(without, threads=1).peak("bfloat16") == ("fma_float32", 1e9)


def test_the_roof_is_the_slower_of_arithmetic_and_memory():
    roof = Roofline(AMX, threads=1)
    of_arithmetic = roof.describe(Work(flops=8e9, bytes=1e7), elapsed_s=2.0)
    assert of_arithmetic == {
        "roof": "amx bfloat16",
        "gflop_per_s": 4.0,
        "gb_per_s": 0.005,
        "share_of_roof": 0.5,
    }
    of_memory = roof.describe(Work(flops=8e8, bytes=1e8), elapsed_s=4.0)
    assert of_memory["roof"] == "memory read"
    assert of_memory["share_of_roof"] == 0.25


def test_what_is_printed_is_read():
    assert parse("a_flop_per_s 1e9\nb 2.5\n") == {"a_flop_per_s": 1e9, "b": 2.5}


def test_the_program_builds_and_measures(tmp_path, monkeypatch):
    monkeypatch.setattr("roofline.ROUND_S", 0.01)
    monkeypatch.setattr("roofline.BUFFER_BYTES", 1 << 22)
    roof = measure_roofline(tmp_path)
    assert {"fma_float32_flop_per_s", "memory_read_byte_per_s", "memory_copy_byte_per_s"} <= set(
        roof.peaks
    )
    assert all(1e8 < rate < 1e16 for rate in roof.peaks.values())
    (program,) = tmp_path.iterdir()
    built = program.stat().st_mtime_ns
    measure_roofline(tmp_path)
    assert program.stat().st_mtime_ns == built
