"""When a metric's code counts as another, in files and in a notebook."""

import functools
import hashlib
import importlib
import inspect
import itertools
import logging
import operator
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast.metrics import Perplexity
from pythia_fast.metrics.code import code_sha256

METRIC = """
class Own:
    name = "own"

    def __call__(self, model, batch):
        return {"x": batch.lengths_B * 2}
"""
USING = """
class Own:
    name = "own"

    def __call__(self, model, batch):
        return {"x": measured(batch.lengths_B)}
"""

Code = Callable[[str], str | None]


@pytest.fixture
def cells() -> Iterator[Code]:
    """The code of `Own` after some text was run as in a notebook, where there are no files."""
    module = types.ModuleType("cells")
    numbers = itertools.count()

    def code(text: str) -> str | None:
        exec(compile(text, f"<cell {next(numbers)}>", "exec"), vars(module))
        return code_sha256(module.Own())

    sys.modules["cells"] = module
    yield code
    del sys.modules["cells"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    """The code of `Own` of a file with this text, imported anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def code(text: str) -> str | None:
        (tmp_path / "own_metric.py").write_text(text)
        sys.modules.pop("own_metric", None)
        importlib.invalidate_caches()
        return code_sha256(importlib.import_module("own_metric").Own())

    yield code
    sys.modules.pop("own_metric", None)


@pytest.fixture(params=["cells", "file"])
def either(request: pytest.FixtureRequest) -> Code:
    code: Code = request.getfixturevalue(request.param)
    return code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (METRIC, METRIC.replace("* 2", "* 3")),
        (METRIC, METRIC.replace("lengths_B", "rows_B")),
        (METRIC, METRIC.replace('"x"', '"y"')),
        (METRIC, METRIC.replace("return", "batch = batch or model; return")),
    ],
)
def test_an_edited_class_is_other_code(either: Code, before: str, after: str) -> None:
    first, then = either(before), either(after)
    assert None not in (first, then)
    assert first != then


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def measured(x): return x * 2", "def measured(x): return x * 3"),
        ("def measured(x, by=2): return x * by", "def measured(x, by=3): return x * by"),
        ("measured = lambda x: x * 2", "measured = lambda x: x * 3"),
        (
            "def measured(x): return deeper(x)\ndef deeper(x): return x",
            "def measured(x): return deeper(x)\ndef deeper(x): return -x",
        ),
        (
            "def measured(x): return list(map(lambda y: y + 2, x))",
            "def measured(x): return list(map(lambda y: y + 3, x))",
        ),
        ("K = 2\ndef measured(x): return x * K", "K = 3\ndef measured(x): return x * K"),
        (
            "LAYERS = [1, 5]\ndef measured(x): return x[LAYERS]",
            "LAYERS = [1, 9]\ndef measured(x): return x[LAYERS]",
        ),
        (
            "class Part:\n    def go(self, x): return x\ndef measured(x): return Part().go(x)",
            "class Part:\n    def go(self, x): return -x\ndef measured(x): return Part().go(x)",
        ),
        (
            "def by(k):\n    def inner(x): return x * k\n    return inner\nmeasured = by(2)",
            "def by(k):\n    def inner(x): return x * k\n    return inner\nmeasured = by(3)",
        ),
        (
            "from functools import partial\ndef f(x, k): return x\nmeasured = partial(f, k=2)",
            "from functools import partial\ndef f(x, k): return x\nmeasured = partial(f, k=3)",
        ),
        (
            "from functools import cache\n@cache\ndef measured(x): return x",
            "from functools import cache\n@cache\ndef measured(x): return -x",
        ),
        (
            "WAYS = {'a': lambda x: x}\ndef measured(x): return WAYS['a'](x)",
            "WAYS = {'a': lambda x: -x}\ndef measured(x): return WAYS['a'](x)",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    k: int\n"
            "IT = Settings(2)\ndef measured(x): return x * IT.k",
            "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    k: int\n"
            "IT = Settings(3)\ndef measured(x): return x * IT.k",
        ),
        (
            "import enum\nclass Way(enum.Enum):\n    A = 2\nWAY = Way.A\n"
            "def measured(x): return x * WAY.value",
            "import enum\nclass Way(enum.Enum):\n    A = 3\nWAY = Way.A\n"
            "def measured(x): return x * WAY.value",
        ),
        (
            "import torch\nDTYPE = torch.float32\ndef measured(x): return x.to(DTYPE)",
            "import torch\nDTYPE = torch.float16\ndef measured(x): return x.to(DTYPE)",
        ),
    ],
)
def test_what_it_uses_of_its_module_counts(either: Code, before: str, after: str) -> None:
    first, again, then = either(before + USING), either(before + USING), either(after + USING)
    assert first == again
    assert first != then


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch\nREDUCE = torch.sum", "import torch\nREDUCE = torch.mean"),
        ("import numpy\nREDUCE = numpy.sum", "import numpy\nREDUCE = numpy.mean"),
        ("import numpy\nREDUCE = numpy.add", "import numpy\nREDUCE = numpy.multiply"),
        ("from statistics import mean as REDUCE", "from statistics import median as REDUCE"),
        ("REDUCE = max", "REDUCE = min"),
        ("REDUCE = [max]", "REDUCE = [min]"),
        ("from json import JSONEncoder as REDUCE", "from json import JSONDecoder as REDUCE"),
        ("import json as REDUCE", "import pickle as REDUCE"),
        ("import json as np", "import pickle as np"),
        (
            "import functools, numpy\nREDUCE = functools.partial(numpy.sum)",
            "import functools, numpy\nREDUCE = functools.partial(numpy.mean)",
        ),
    ],
)
def test_what_it_uses_of_other_modules_counts_by_name(
    either: Code, before: str, after: str
) -> None:
    using = "\ndef measured(x): return REDUCE, np\n" + USING
    assert either(before + using) == either(before + using) != either(after + using)


@pytest.mark.parametrize(
    "text",
    [
        "class Base:\n    def measure(self, x): return x * 2\n"
        "class Own(Base):\n    name = 'own'\n    def __call__(self, m, b): return self.measure(b)",
        "def twice(function):\n    return lambda *given: function(*given) * 2\n"
        "class Own:\n    name = 'own'\n    @twice\n    def __call__(self, m, b): return b",
        "import torch\nclass Own:\n    name = 'own'\n    @torch.inference_mode()\n"
        "    def __call__(self, m, b): return b * 2",
        "class Own:\n    name = 'own'\n    @property\n    def k(self): return 2\n"
        "    def __call__(self, m, b): return b * self.k",
        "K = 2\nclass Own:\n    name = 'own'\n    _k = K\n"
        "    def __call__(self, m, b): return b * self._k",
        "K = 2\nclass Own:\n    name = 'own'\n    def __call__(self, m, b, k=K): return b * k",
    ],
)
def test_bases_decorators_and_class_values_count(either: Code, text: str) -> None:
    assert either(text) == either(text)
    assert either(text) != either(text.replace("2", "3"))


def test_a_base_of_another_module_counts_by_name_in_a_notebook(cells: Code) -> None:
    text = f"import json\n{METRIC.replace('Own', 'Own(json.JSONEncoder)')}"
    assert cells(text) == cells(text) != cells(text.replace("Encoder", "Decoder"))
    assert cells(METRIC) != cells(text)


def test_what_the_code_itself_changes_does_not_count(either: Code) -> None:
    text = (
        "CALLS = 0\nLOG = []\nCACHE = {}\n"
        "def measured(x):\n    global CALLS\n    CALLS += 1\n    LOG.append(x)\n"
        "    CACHE[x] = 2\n    return x\n"
    )
    before = either(text + USING)
    changed = text.replace("= 0", "= 7").replace("[]", "[1]").replace("{}", "{1: 2}")
    assert either(changed + USING) == before


@pytest.mark.parametrize(
    "line",
    [
        "y = z = x * SCALE",
        "y = 0 < SCALE < x",
        "y = SCALE and x",
        "y = SCALE or x",
        "y = [0]; y[x * SCALE] = 1",
        "y = [0]; y[x * SCALE] += 1",
        "y = [0]; y[x:SCALE] = []",
        "y = [0]; y[x] = SCALE",
    ],
)
def test_what_the_code_only_reads_counts(either: Code, line: str) -> None:
    text = f"SCALE = 2\ndef measured(x):\n    {line}\n    return y\n"
    assert either(text + USING) != either(text.replace("= 2", "= 3") + USING)


@pytest.mark.parametrize("line", ["C[x] += 1", "C[0] += 1", "C[K] -= x", "del C[x]", "C[x] = K"])
def test_an_item_that_the_code_changes(either: Code, line: str) -> None:
    text = f"K = 1\nC = [0]\ndef measured(x):\n    {line}\n    return x\n"
    assert either(text + USING) == either(text.replace("[0]", "[9]", 1) + USING)


def test_a_cell_that_is_run_again_is_the_same_code(cells: Code) -> None:
    first = cells(METRIC)
    assert cells(f"# further down\n\n{METRIC}") == first


def test_the_source_of_a_file_is_its_code_alone(file: Code) -> None:
    """So that runs of files go on which were begun before more than the source was looked at."""
    plain = f"import numpy as np\nUNUSED = 3\n{METRIC.replace('* 2', '* np.int64(2)')}"
    code = file(plain)
    source = inspect.getsource(sys.modules["own_metric"].Own)
    assert code == hashlib.sha256(source.encode()).hexdigest()
    assert file(plain.replace("np.int64", "2 or np.int64")) != code


def test_imports_that_are_told_by_their_names_add_nothing_to_a_source(file: Code) -> None:
    text = (
        "import math\nfrom collections.abc import Mapping\nfrom dataclasses import dataclass\n"
        "from typing import Any\nimport numpy as np\nimport torch\n"
        "from pythia_fast.metrics import Metric\n@dataclass\nclass Own(Metric):\n"
        "    k: int = 2\n    def __call__(self, model: Any, batch) -> Mapping[str, Any]:\n"
        "        return {'x': np.sum(math.log(torch.ones(1)))}\n"
    )
    code = file(text)
    source = inspect.getsource(sys.modules["own_metric"].Own)
    assert code == hashlib.sha256(source.encode()).hexdigest()


def test_a_file_that_was_edited_after_its_import(file: Code, tmp_path: Path) -> None:
    """The code that runs counts, not what the file says by now."""
    first = file(METRIC)
    imported = sys.modules["own_metric"].Own
    later = file(METRIC.replace("* 2", "* 3"))
    sys.modules["own_metric"].Own = imported
    assert code_sha256(imported()) not in (later, None)
    file(METRIC)
    assert code_sha256(imported()) == first


@pytest.mark.parametrize("name", ["Own", "measured", "shorter"])
def test_lines_that_are_added_above_change_nothing(file: Code, tmp_path: Path, name: str) -> None:
    text = (
        "import functools\ndef other(x):\n    return x - 1\nshorter = lambda x: x\n"
        f"@functools.cache\ndef measured(x):\n    return x * 2\n{METRIC.rstrip()}"
    )
    file(text)
    module = sys.modules["own_metric"]
    metric = module.Own() if name == "Own" else inspect.unwrap(getattr(module, name))
    thing = module.Own if name == "Own" else metric
    source = hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
    assert code_sha256(metric) == source
    for above in ("#\n" * 3, "#\n" * 20):
        (tmp_path / "own_metric.py").write_text(above + text)
        assert code_sha256(metric) == source


def test_a_class_that_replaces_that_of_a_file(file: Code) -> None:
    """As at the prompt of `python -i own_metric.py`."""
    first = file(METRIC)
    module = sys.modules["own_metric"]
    exec(METRIC.replace("* 2", "* 3"), vars(module))
    assert code_sha256(module.Own()) not in (first, None)


def test_a_metric_that_is_a_function(cells: Code) -> None:
    def own(k: int) -> Callable[..., int]:
        def measure(model: object, batch: object) -> int:
            return k

        return measure

    assert code_sha256(own(2)) == code_sha256(own(2)) != code_sha256(own(3))
    partial = functools.partial
    assert code_sha256(partial(own(2), None)) != code_sha256(partial(own(2), 1))


def test_the_code_of_a_notebook_is_the_same_in_every_process() -> None:
    text = (
        f"WAYS = {{'left', 'right', 'up'}}\ndef measured(x): return x in {{'a', 'b', 'c'}} or WAYS"
        f"{USING}\nfrom pythia_fast.metrics import identity\nprint(identity(Own())['code'])"
    )

    def told(seed: int, blank: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", blank + text],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert len(told(1, "")) == 65
    assert told(1, "") == told(2, "\n\n")


def test_a_cell_of_ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    text = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from pythia_fast.metrics import identity\n"
        "shell = InteractiveShell.instance()\n"
        "import sys\n"
        "for text in sys.argv[1:]:\n"
        "    assert shell.run_cell(text).success\n"
        "    print(identity(shell.user_ns['Own']())['code'])\n"
    )
    helper = "def measured(x): return x\n"
    texts = (helper + USING, f"1\n{helper}{USING}", helper.replace("return", "return -") + USING)
    told = []
    script = tmp_path / "shell.py"
    script.write_text(text)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, script, *texts], capture_output=True, text=True, check=True
        )
        told.append(done.stdout.split())
    assert told[0] == told[1]
    first, again, edited = told[0]
    assert first == again != edited


def test_built_in_metrics_have_a_version_instead() -> None:
    assert code_sha256(Perplexity()) is None


def test_where_python_sees_no_code_the_user_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "pythia_fast"):
        assert code_sha256(operator.itemgetter(0)) is None
        assert code_sha256(operator.itemgetter(1)) is None
    (told,) = caplog.messages
    assert "sees no code of the metric operator:itemgetter" in told
