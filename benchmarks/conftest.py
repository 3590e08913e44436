"""Fixtures of the benchmarks, and where their results go."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from comparison import Comparison, describe_machine

from pythia_fast.suite import Architecture, spec
from pythia_fast.testing import make_series

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--save-results",
        metavar="MACHINE",
        help="keep the comparisons as benchmarks/results/<theme>_<MACHINE>_<date>.json",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A benchmark takes as long as its peers take."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def shape_of_70m() -> Architecture:
    """The true shape of Pythia 70m."""
    return spec("70m").architecture


@pytest.fixture(scope="session")
def series_70m(tmp_path_factory: pytest.TempPathFactory, shape_of_70m: Architecture) -> Path:
    """Eight checkpoints of 70m's true shape with random weights, in both formats by turns."""
    folder = tmp_path_factory.mktemp("series") / "pythia-70m-random"
    return make_series(folder, shape_of_70m, range(8))


@pytest.fixture(scope="module")
def comparison(request: pytest.FixtureRequest) -> Iterator[Comparison]:
    """The comparisons of one file; printed at its end, and kept with --save-results."""
    theme = Path(request.fspath).stem.removeprefix("bench_")
    collected = Comparison(theme)
    yield collected
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{theme}")
        for row in collected.rows:
            print("  " + ", ".join(f"{key} {_text(value)}" for key, value in row.items()))
    machine = request.config.getoption("--save-results")
    if machine and collected.rows:
        today = datetime.now(UTC).date().isoformat()
        record = {"theme": theme, "date": today, "machine": describe_machine()}
        command = " ".join(["python -m pytest", *sys.argv[1:]])
        record |= {"command": command, "rows": collected.rows}
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{theme}_{machine}_{today}.json"
        path.write_text(json.dumps(record, indent=2) + "\n")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
