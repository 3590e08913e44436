"""The README's Python blocks run, and print what it says they print."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*) ?(no-run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_blocks_run_in_order_and_print_what_is_shown(tmp_path: Path) -> None:
    blocks = BLOCK.findall(README.read_text())
    code = [text for language, skipped, text in blocks if language == "python" and not skipped]
    assert len(code) >= 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [text for language, _, text in blocks if not language and "metric   value" in text]
    for text in shown:
        assert text.split() == done.stdout.split()[: len(text.split())]
    assert shown


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()))
def test_links_lead_somewhere(target: str) -> None:
    assert (README.parent / target).exists()


def test_the_blocks_that_need_the_hub_are_valid_python() -> None:
    for language, skipped, text in BLOCK.findall(README.read_text()):
        if language == "python" and skipped:
            compile(text, "README.md", "exec")
