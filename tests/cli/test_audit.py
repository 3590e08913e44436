"""`pythia-fast audit`."""

import json
from pathlib import Path

from pythia_fast.testing import tiny_suite


def test_a_clean_series(run, tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2), layout="torch", copies={1: 0})
    said = run("audit", suite)
    assert "1  expected  same weights  0, 1" in said.stdout
    assert said.stderr == ""
    found = json.loads(run("audit", suite, "--deep", "--json").stdout)
    assert (found["ok"], found["deep"], found["steps"]) == (True, True, [0, 1, 2])


def test_findings_end_with_4(run, tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path / "s", steps=(0, 1, 2, 3), layout="torch", copies={3: 1})
    said = run("audit", suite, "--quiet", exit_code=4)
    assert "1  error     same weights  1, 3" in said.stdout
    found = json.loads(run("audit", suite, "--json", exit_code=4).stdout)
    assert [each["kind"] for each in found["findings"]] == ["same weights"]
    run("audit", suite, "--steps", "0,1")


def test_wrong_usage(run, tmp_path: Path) -> None:
    assert "no folder" in run("audit", tmp_path / "nothing", exit_code=3).output
    suite = tiny_suite(tmp_path / "s", steps=(0,))
    assert "size" in run("audit", suite, "--disk-budget", "much", exit_code=2).output
    assert "no checkpoint of step 9" in run("audit", suite, "--steps", "9", exit_code=3).output
