"""Files and folders of evaluations that are broken, odd or closed: each is a row that says so."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from evals_tree import RESULTS, harness, write

from pythia_fast.analysis import published

GOOD = "pythia-v1/pythia-70m/zero-shot/70m_step{}.json"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (json.dumps(harness("EleutherAI/pythia-70m", 64))[:80], "unreadable", "cannot be read"),
        (b"", "unreadable", "cannot be read"),
        (b"\xff\xfe\x00", "unreadable", "cannot be read"),
        ("[" * 200_000, "unreadable", "cannot be read"),
        ("[1, 2]", "unreadable", "no results"),
        ({"config": {}}, "unreadable", "no results"),
        ({"results": {}}, "unreadable", "empty"),
        ({"results": {"sciq": 3}}, "unreadable", "no numbers"),
        ({"results": {"sciq": {"acc": "0.5"}}}, "unreadable", "'0.5' is no number"),
        ({"results": {"sciq": {"acc": True}}}, "unreadable", "True is no number"),
        ('{"results": {"sciq": {"acc": NaN}}}', "non-finite", "not finite"),
        ({"results": {"sciq": {"acc": 10**400}}}, "non-finite", "not finite"),
        ({"results": RESULTS, "config": {"num_fewshot": 10**30}}, "doubtful", "no number of shots"),
        ({"results": RESULTS, "config": {"num_fewshot": -1}}, "doubtful", "-1 is no number of sh"),
        (
            {"results": RESULTS, "config": {"model_args": {"iteration": 10**30}}},
            "doubtful",
            "is no step",
        ),
        ({"results": RESULTS, "n-shot": {"lambada_openai": 10**30}}, "unreadable", "its n-shot"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_broken_files_are_rows_that_say_so(
    tmp_path: Path, content: Any, status: str, said: str
) -> None:
    write(tmp_path, GOOD.format(0), harness("EleutherAI/pythia-70m", 0))
    write(tmp_path, GOOD.format(64), content)
    table = published(tmp_path)
    (row, *_) = table.filter(pc.equal(table["file"], GOOD.format(64))).to_pylist()
    assert (row["model"], row["step"], row["status"]) == ("70m", 64, status)
    assert said in row["problem"]
    assert status in ("non-finite", "doubtful") or row["value"] is None
    assert Counter(table["status"].to_pylist())["ok"] == 2


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD.format(64), harness("EleutherAI/pythia-70m", 64))

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (row,) = published(tmp_path).to_pylist()
    assert (row["model"], row["step"], row["status"]) == ("70m", 64, "unreadable")
    assert row["problem"] == "cannot be read: Permission denied"


def test_what_no_utf8_can_be_is_shown_otherwise(tmp_path: Path) -> None:
    content = json.dumps(harness("EleutherAI/pythia-70m\\ud800", 64)).replace(chr(92) * 2, chr(92))
    content = content.replace("lambada_openai", chr(92) + "ud800task").replace(
        '"acc"', '"a\\ud800"'
    )
    name = os.fsdecode(b"70m_step64\xff.json")
    write(tmp_path, name, content)
    found = published(tmp_path).to_pylist()
    assert {row["file"] for row in found} == {"70m_step64?.json"}
    assert {row["task"] for row in found} == {"?task"}
    assert {row["evaluated"] for row in found} == {"EleutherAI/pythia-70m?"}
    assert {row["metric"] for row in found} >= {"ppl", "a?"}


def test_a_limit_larger_than_any_number_is_unknown(tmp_path: Path) -> None:
    content = harness("EleutherAI/pythia-70m", 64)
    content["config"]["limit"] = 10**400
    write(tmp_path, GOOD.format(64), content)
    assert set(published(tmp_path)["limit"].to_pylist()) == {None}


def test_folders_that_are_not_read_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "evals"
    write(root, GOOD.format(64), harness("EleutherAI/pythia-70m", 64))
    write(tmp_path, "elsewhere/70m_step0.json", harness("EleutherAI/pythia-70m", 0))
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "closed").mkdir()
    listed = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    rows = {row["file"]: row for row in published(root).to_pylist()}
    assert sorted(rows) == ["closed", "linked", GOOD.format(64)]
    for name, words in (("closed", "listed: Permission denied"), ("linked", "not followed")):
        assert rows[name]["status"] == "unreadable"
        assert words in rows[name]["problem"]
