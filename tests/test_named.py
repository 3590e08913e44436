"""Objects that a user names, of files and of modules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.metrics.code import code_sha256, name_of
from pythia_fast.named import find_here, load, shown

TEXT = """
from __future__ import annotations
class Own:
    def measure(self): return 2
    k = 3
answer = 42
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current one, which has a `mine.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "mine.py").write_text(TEXT)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_of_a_file(folder: Path) -> None:
    own = load("mine.py:Own", "metric")
    assert own().measure() == 2
    assert sys.modules[own.__module__].Own is own
    assert shown(own.__module__) == "mine.py"
    assert load("mine.py:Own.k", "metric") == 3
    assert load(f"{folder}/mine.py:answer", "metric") == 42
    assert "mine" not in sys.modules


def test_a_file_is_run_again_when_its_text_is_another(folder: Path) -> None:
    own = load("mine.py:Own", "metric")
    assert load("mine.py:Own", "metric") is own
    (folder / "mine.py").write_text(TEXT.replace("k = 3", "k = 4"))  # as long, at the same time
    assert load("mine.py:Own.k", "metric") == 4


def test_two_files_of_one_name(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/mine.py").write_text("answer = 43")
    assert [load(f"{name}:answer", "x") for name in ("mine.py", "sub/mine.py")] == [42, 43]


def test_two_files_of_one_name_leave_each_other_alone(folder: Path) -> None:
    for sub in ("a", "b"):
        (folder / sub).mkdir()
        (folder / sub / "mine.py").write_text(
            f"K = {sub!r}\nclass Own:\n    def __call__(self, model, batch): return K"
        )
    first, then = (load(f"{sub}/mine.py:Own", "metric") for sub in ("a", "b"))
    codes = [code_sha256(each()) for each in (first, then)]
    assert load("a/mine.py:Own", "metric") is first
    assert [code_sha256(each()) for each in (first, then)] == codes
    assert name_of(first()) == name_of(then()) == "mine.py:Own"
    assert [sys.modules[each.__module__].K for each in (first, then)] == ["a", "b"]


def test_a_failed_load_leaves_what_was_loaded_before(folder: Path) -> None:
    own = load("mine.py:Own", "metric")
    (folder / "mine.py").write_text("raise ValueError")
    with pytest.raises(ArgumentError):
        load("mine.py:Own", "metric")
    assert sys.modules[own.__module__].Own is own
    (folder / "mine.py").write_text(TEXT)
    assert load("mine.py:Own", "metric") is own


def test_of_a_module_of_the_current_folder(folder: Path) -> None:
    (folder / "package_here").mkdir()
    (folder / "package_here/of_mine.py").write_text("answer = 44")
    find_here()
    assert load("package_here.of_mine:answer", "metric") == 44


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py", "'mine.py' does not name a metric: give module:metric or file.py:metric"),
        ("mine.py:", "does not name a metric"),
        (":Own", "does not name a metric"),
        ("mine.py:Other", "file 'mine.py' has no 'Other'"),
        ("no.py:Own", "cannot read no.py: No such file"),
        ("no_such:Own", "there is no module 'no_such'"),
        ("json:Own", "module 'json' has no 'Own'"),
        ("bad.py:Own", r"'bad.py' cannot be imported: ValueError: two lines \(.*/bad.py:1\)"),
        ("broken.py:Own", r"'broken.py' cannot be imported: SyntaxError: .*\(broken.py, line 1\)"),
        ("exits.py:Own", "'exits.py' cannot be imported: SystemExit: 3"),
        ("needs.py:Own", "'needs.py' cannot be imported: ModuleNotFoundError: .*'no_such'"),
        ("zero.py:Own", "'zero.py' cannot be imported: "),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(folder: Path, name: str, words: str) -> None:
    for file, text in {
        "bad": "raise ValueError('two\\nlines')",
        "broken": "def (",
        "exits": "raise SystemExit(3)",
        "needs": "import no_such",
        "zero": "\0",
    }.items():
        (folder / f"{file}.py").write_text(text)
    with pytest.raises(ArgumentError, match=words) as caught:
        load(name, "metric")
    assert "\n" not in str(caught.value)
    assert not {"bad.py", "broken.py", "exits.py"} & set(map(shown, sys.modules))
