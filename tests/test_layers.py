"""The rooms of the house and who may know whom: checked on the source, not hoped for."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pythia_fast"
CSRC = ROOT / "csrc"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".cpp", ".h", ".hpp", ".cc"})

# Lowest first. A module imports from its own room and from those before it.
ROOMS = (
    "words",
    "errors",
    "markup",
    "extras",
    "named",
    "tabular",
    "quantities",
    "progress",
    "futures",
    "identity",
    "publish",
    "_core",
    "core",
    "cache",
    "hub",
    "digest",
    "suite",
    "tokens",
    "kernels",
    "store",
    "series",
    "model",
    "streaming",
    "metrics",
    "plots",
    "report",
    "auditing",
    "runs",
    "evaluation",
    "analysis",
    "testing",
    "demo",
    "cli",
    "__main__",
)
MAY_IMPORT_TESTING = {"testing", "demo"}
# Extras: imported in the function that needs them.
ON_REQUEST = {
    *("datasets", "lm_eval", "matplotlib", "pandas", "plotly", "polars"),
    *("ray", "scipy", "statsmodels", "transformers"),
}
WITH_ANOTHER = {"yaml"}  # huggingface_hub, which is declared, needs it: imported where it is used
SHARED_EXTRAS = {"zstandard"}  # likewise, but httpx loads it too where it is there
NATIVE_ROOMS = ("io", "tokens", "cpu", "fuzz")
FOUNDATIONS = {"isa", "intrinsics"}  # files of csrc/ itself, which every native room may include
BINDINGS = sorted(
    path for path in SOURCES if path.parent == CSRC and path.stem.startswith("bindings")
)


def room_of(path: Path) -> str:
    """`errors.py` and `suite/names.py` lie in the rooms errors and suite."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of whatever a module imports, wherever in it, also for types only."""
    package = ("pythia_fast", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            if module == "pythia_fast":
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def imported_on_load(path: Path) -> set[str]:
    """The top packages that a module imports as soon as it is imported itself."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check():
    assert len(MODULES) > 10
    assert len(SOURCES) > 5


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_only_from_its_own_room_and_those_below(path):
    if path == PACKAGE / "__init__.py":
        return  # the front door opens to every room, on first use only: see below
    room = room_of(path)
    assert room in ROOMS, f"give the room {room!r} its place in ROOMS"
    for line, name in imports(path):
        top, *rest = name.split(".")
        if top != "pythia_fast":
            continue
        where = f"{relative(path)}:{line} imports {name}"
        assert rest, f"{where}: the front door is for users, name the room"
        assert rest[0] in ROOMS, f"{where}: no such room"
        assert ROOMS.index(rest[0]) <= ROOMS.index(room), f"{where}: that room lies above"
        if rest[0] == "testing":
            assert room in MAY_IMPORT_TESTING, f"{where}: testing is for tests and the demo"
        if rest[0] == "_core":
            assert room == "core", (
                f"{where}: go through pythia_fast.core, which explains its absence"
            )


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_room_is_entered_through_importlib(path):
    if path == PACKAGE / "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("__import__", "import_module")
        ):
            assert "pythia_fast" not in ast.unparse(node), f"{relative(path)}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_what_a_module_needs_from_outside_is_declared(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", need)[0].replace("-", "_") for need in project["dependencies"]}
    standard = set(sys.stdlib_module_names)
    outside = {name.split(".")[0] for _, name in imports(path)} - standard - {"pythia_fast"}
    assert outside <= declared | ON_REQUEST | SHARED_EXTRAS | WITH_ANOTHER
    assert imported_on_load(path) <= declared | standard | {"pythia_fast"}


def in_a_fresh_python(program: str) -> str:
    """What `program` prints; any attempt to reach the network is an error in it."""
    guard = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise AssertionError(f"network on import: {event} {arguments}")

sys.addaudithook(refuse)
"""
    done = subprocess.run(
        [sys.executable, "-c", guard + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_pythia_fast_is_cheap():
    program = """
import pythia_fast

print(*sorted(name for name in sys.modules if "." not in name))
"""
    loaded = set(in_a_fresh_python(program).split())
    assert "pythia_fast" in loaded
    heavy = {"torch", "numpy", "pyarrow", "triton", "huggingface_hub", "tokenizers"}
    assert not loaded & (heavy | ON_REQUEST)


def test_importing_every_module_reaches_no_network_loads_no_extra_and_leaves_the_process_alone():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.name != "__main__.py"
    ]
    program = f"""
import importlib
import os
import signal
import threading

import torch  # whatever the libraries themselves do on import is not ours to answer for
import huggingface_hub, pyarrow.parquet, tokenizers

before = (dict(os.environ), threading.active_count(), torch.get_num_threads(),
          torch.get_default_dtype(), signal.getsignal(signal.SIGINT), os.getcwd())
for name in {names!r}:
    importlib.import_module(name)
after = (dict(os.environ), threading.active_count(), torch.get_num_threads(),
         torch.get_default_dtype(), signal.getsignal(signal.SIGINT), os.getcwd())
assert before == after, (before, after)
print(*sorted(name for name in sys.modules if "." not in name))
"""
    loaded = set(in_a_fresh_python(program).split())
    assert {"pythia_fast", "torch"} <= loaded
    assert not loaded & ON_REQUEST


INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_the_bindings_know_python_and_nothing_knows_torch(path):
    included = INCLUDE.findall(path.read_text())
    for header in included:
        assert not re.match(r"(torch|ATen|c10|numpy)/", header), f"{relative(path)}: {header}"
        assert header != "pybind11/numpy.h", "buffers come through the buffer protocol"
        if path not in BINDINGS:
            assert not re.match(r"pybind11/|Python\.h$", header), f"{relative(path)}: {header}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_native_code_includes_only_its_own_room_and_those_below(path):
    if path in BINDINGS:
        return
    room = path.relative_to(CSRC).parts[0].removesuffix(path.suffix)
    if room in FOUNDATIONS:
        room = NATIVE_ROOMS[0]
    assert room in NATIVE_ROOMS, f"give the room {room!r} its place in NATIVE_ROOMS"
    for header in INCLUDE.findall(path.read_text()):
        other = header.split("/")[0]
        assert not header.startswith("bindings"), f"{path}: {header}"
        if (CSRC / header).is_file() and other.removesuffix(".h") not in FOUNDATIONS:
            assert NATIVE_ROOMS.index(other) <= NATIVE_ROOMS.index(room), f"{path}: {header}"


def test_no_public_name_is_also_a_room() -> None:
    """Importing a submodule would put the module in the name's place."""
    import pythia_fast

    assert not set(pythia_fast.__all__) & set(ROOMS)
