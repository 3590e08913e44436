"""README's tables and the records on disk agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import record
import tables
from comparison import EFFORTS, Comparison
from roofline import Roofline

ROW = {
    "case": "a|b",
    "peer": "p",
    "ours_median_s": 0.5,
    "peer_median_s": 1.25e-3,
    "ratio_median": 2.5,
    "ratio_min": 2.0,
    "ratio_max": 3.0,
    "rounds": 3,
    "cache": "warm",
}


def test_readme_shows_what_the_records_say():
    done = subprocess.run([sys.executable, tables.__file__, "--check"], check=False)
    assert done.returncode == 0, "run `python benchmarks/tables.py`"


@pytest.mark.parametrize("path", sorted(record.RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_every_record_is_strict_json_under_its_own_name(path):
    def refuse(name):
        raise ValueError(name)

    kept = json.loads(path.read_text(), parse_constant=refuse)
    theme, _, date = path.stem.rsplit("_", 2)
    assert (kept["theme"], kept["date"]) == (theme, date)
    assert kept.get("effort", "standard") != "quick"


def test_old_rows_and_new_ones_make_a_table():
    roof = {"ours_roof": "amx", "ours_gflop_per_s": 1000.0, "ours_share_of_roof": 0.5}
    text = tables.comparisons([ROW, ROW | roof | {"target_ratio": 3.0, "mean_error": 1e-5}])
    head, _, first, second = text.splitlines()
    assert head == (
        "| case | peer | ours | peer's time | ratio | asked | ours, of the roof | rounds "
        "| mean error |"
    )
    assert first == "| a\\|b | p | 500 ms | 1.25 ms | 2.50 (2.00 to 3.00) |  |  | 3 |  |"
    assert second.endswith("| 3.00 | 50% of amx, 1,000 GFLOP/s | 3 | 1e-05 |")


def test_seconds_have_a_unit_that_fits():
    assert [tables.seconds(value) for value in (12.34, 0.012, 3e-6)] == ["12.3 s", "12 ms", "3 µs"]


def test_tables_replace_what_is_between_the_marks():
    text = f"a\n{tables.BEGIN}\nold\n{tables.END}\nb\n"
    new = tables.replaced(text, "new")
    assert new == f"a\n{tables.BEGIN}\n\nnew\n\n{tables.END}\nb\n"
    assert tables.replaced(new, "new") == new


def test_saved_and_read_again(tmp_path: Path):
    collected = Comparison("theme", EFFORTS["full"], Roofline({"x_flop_per_s": 1e9}, 2))
    collected.note("case", {"value": 1.0})
    collected.calibrated("peer", "setting", {"s": 1.0})
    path = record.save(collected, tmp_path, "some-2core", {"cpu": "c"}, "command")
    assert path.name.startswith("theme-full_some-2core_")
    (kept,) = record.latest(tmp_path)
    assert kept["rows"] == [{"case": "case", "value": 1.0}]
    assert kept["calibration"] == [{"case": "peer", "setting": "setting", "s": 1.0}]
    assert kept["roofline"]["peaks"] == {"x_flop_per_s": 1e9}
    assert kept["name"] == "some-2core"


def test_the_newest_record_of_a_machine_counts(tmp_path: Path):
    for date, value in (("2026-01-02", 2), ("2026-01-01", 1)):
        (tmp_path / f"some_theme_m_{date}.json").write_text(
            json.dumps({"date": date, "value": value})
        )
    (kept,) = record.latest(tmp_path)
    assert kept["value"] == 2
