"""`--metrics` with a user's own, of files and of modules."""

import json
import subprocess
import sys

import pytest

from pythia_fast.cli.metrics import load_metrics

MINE = """
print("loaded")

def doubled(lengths):
    return lengths * BY

BY = 2

class Length:
    name = "length"
    def __call__(self, model, batch):
        return {"length": doubled(batch.lengths_B)}

length = Length()

class Needs(Length):
    def __init__(self, k):
        self.k = k

def nameless(model, batch):
    return {}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The current folder, with `mine.py` and the same as `of_mine.mine`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    (tmp_path / "of_mine").mkdir()
    (tmp_path / "of_mine/by.py").write_text("BY = 2\n")
    (tmp_path / "of_mine/mine.py").write_text(MINE.replace("BY = 2", "from of_mine.by import BY"))
    (tmp_path / "mine.py").write_text(MINE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("of_mine", "mine")):
            del sys.modules[name]


@pytest.mark.parametrize(
    "name", ["mine.py:Length", "mine.py:length", "of_mine.mine:Length", "of_mine/mine.py:Length"]
)
def test_a_sweep_of_ones_own(run, suite, tokens, mine, name):
    arguments = ["sweep", suite, "--tokens", tokens, "--out", mine / "run", "--json"]
    arguments += ["--metrics", f"perplexity, {name}", "--steps", "0,16"]
    done = run(*arguments)
    rows = [row for row in json.loads(done.stdout)["rows"] if row["metric"] == "length"]
    assert [(row["step"], row["value"]) for row in rows] == [(0, 160), (16, 160)]
    assert "loaded" in done.stderr
    assert "nothing left to compute" in run(*arguments).stderr


def test_an_edited_file_is_another_specification(run, suite, tokens, mine):
    arguments = ["sweep", suite, "--tokens", tokens, "--out", mine / "run", "--quiet"]
    arguments += ["--metrics", "mine.py:Length", "--steps", "0"]
    run(*arguments)
    (mine / "mine.py").write_text(MINE.replace("BY = 2", "BY = 3"))
    refused = run(*arguments, exit_code=3).stderr
    assert "the code of the metric 'length' is another" in refused


def test_a_plan_takes_it_too(run, suite, tokens, mine):
    arguments = ["plan", suite, "--tokens", tokens, "--metrics", "mine.py:Length", "--json"]
    assert json.loads(run(*arguments).stdout)["flops"] > 0


@pytest.mark.parametrize("command", ["sweep", "plan"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py:Other", "file 'mine.py' has no 'Other'"),
        ("no.py:Own", "cannot read no.py"),
        ("mine.py:Needs", "'mine.py:Needs' is a class, and no metric came of calling it without"),
        ("mine.py:nameless", "is no metric"),
        ("mine.py:length,mine.py:Length", "each metric needs a name of its own"),
    ],
)
def test_what_is_no_metric_is_bad_input(run, suite, tokens, mine, command, name, words):
    done = run(command, suite, "--tokens", tokens, "--metrics", name, exit_code=3)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["mine.py:Length", "of_mine.mine:Length"])
def test_rays_workers_get_the_code(mine, tmp_path_factory, name):
    """As another process opens it, which has neither the file nor the package."""
    ray = pytest.importorskip("ray")
    (metric,) = load_metrics([name], for_ray=True)
    sent = tmp_path_factory.mktemp("sent") / "metric"
    sent.write_bytes(ray.cloudpickle.dumps(metric))
    opened = (
        "import pickle, sys, types\n"
        "metric = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print(metric(None, types.SimpleNamespace(lengths_B=21)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", opened, sent],
        cwd=sent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{'length': 42}\n"


def test_an_installed_package_is_not_sent(mine):
    ray = pytest.importorskip("ray")
    load_metrics(["pyarrow.compute:mean"], for_ray=True)
    assert "pyarrow" not in ray.cloudpickle.list_registry_pickle_by_value()
