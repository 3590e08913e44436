"""What `import pythia_fast` gives, and how little of it is imported before it is used."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import pythia_fast

HEAVY = {"torch", "numpy", "pyarrow", "pandas", "transformers", "huggingface_hub", "tokenizers"}


def loaded_after(program: str) -> set[str]:
    """All modules of a fresh Python that has run `program`."""
    code = f"import sys\n{program}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_imports_no_room():
    loaded = loaded_after("import pythia_fast") - loaded_after("pass")
    assert {name for name in loaded if name.startswith("pythia_fast")} == {"pythia_fast"}
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY, "importlib.metadata", "email"}


@pytest.mark.parametrize(
    "call",
    ["models()", "spec('12b-deduped')", "checkpoints('12b')", "__version__", "PythiaFastError"],
)
def test_what_is_known_of_the_suite_needs_no_torch(call):
    loaded = loaded_after(f"import pythia_fast\npythia_fast.{call}")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_its_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(pythia_fast.__file__).read_text())
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(pythia_fast.__all__)
    for name, module in seen.items():
        assert getattr(pythia_fast, name) is getattr(sys.modules[module], name)
    assert set(pythia_fast.__all__) <= set(dir(pythia_fast))


def test_nothing_else_is_shown():
    shown = {name for name in dir(pythia_fast) if not name.startswith("_")}
    assert not shown & {"importlib", "TYPE_CHECKING"}
    rooms = {path.stem for path in Path(pythia_fast.__file__).parent.iterdir()}
    assert shown - set(pythia_fast.__all__) <= rooms


@pytest.mark.parametrize("room", ["analysis", "errors", "testing", "tokens"])
def test_a_room_need_not_be_imported_first(room):
    assert f"pythia_fast.{room}" in loaded_after(f"import pythia_fast\npythia_fast.{room}")
    assert room in dir(pythia_fast)


def test_the_version_is_the_package_s():
    assert pythia_fast.__version__ == version("pythia-fast")
    assert "__version__" in dir(pythia_fast)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        pythia_fast.sweeep  # noqa: B018
