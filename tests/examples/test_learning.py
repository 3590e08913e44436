"""The notebook runs from its first cell to its last, in a kernel of this very interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples/learning.ipynb"

# In a process of its own: sockets of nbclient's outlive it. Through files: no port is opened. These
# lie in the working directory, as kernel-ipc-1 to 5.
EXECUTE = """
import sys

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")
NotebookClient(notebook, km=kernel, timeout=120).execute()
nbformat.write(notebook, sys.argv[2])
"""


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: nbformat.NotebookNode, kind: str) -> str:
    """What a cell's last output is in one of its forms."""
    return cell.outputs[-1]["data"][kind]


def sockets() -> set[tuple[str, int]]:
    """What kernels left in the checkout; an earlier one's may be there."""
    left = (*ROOT.glob("*-ipc-*"), *NOTEBOOK.parent.glob("*-ipc-*"))
    return {(str(path), path.stat().st_mtime_ns) for path in left}


def test_no_outputs_are_kept_in_the_repository() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert code(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_it_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    own = {name: str(tmp_path / name) for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    for folder in own.values():
        Path(folder).mkdir()
    before = sockets()
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(tmp_path / "done.ipynb")],
        cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sockets() == before
    notebook = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    loaded, swept, table, curve, one, lens, report = code(notebook)
    assert "vocabulary rows" in shown(loaded, "text/html")
    assert "<svg" in shown(swept, "text/html")
    assert "without all results" not in shown(swept, "text/html")
    assert "perplexity" in shown(table, "text/plain")
    for cell in (curve, lens):
        assert shown(cell, "image/png").startswith("iVBORw0KGgo")  # PNG, in base64
    printed = "".join(each["text"] for each in one.outputs if each.get("name") == "stdout")
    assert printed.startswith("The quick")
    assert "differ by" in printed
    assert float(printed.rsplit("differ by ", 1)[1].split()[0]) < 1e-4
    (page,) = (tmp_path / "TMPDIR").rglob("report.html")
    assert str(page) in shown(report, "text/plain")
    assert page.read_text().startswith("<!doctype html>")
    for cell in code(notebook):
        if cell is not one:  # transformers says there that it would like widgets
            assert not [each for each in cell.outputs if each.get("name") == "stderr"]
