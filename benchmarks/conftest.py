"""Fixtures of the benchmarks, and where their results go."""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tables
from comparison import EFFORTS, Comparison, Effort
from machine import describe_machine, machine_name
from random_series import RandomSeries
from record import RESULTS, save
from roofline import Roofline, measure_roofline

from pythia_fast.suite import Architecture, spec

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption(
        "--save-results",
        metavar="MACHINE",
        nargs="?",
        const="",
        help="keep the comparisons as <theme>_<MACHINE>_<date>.json; without a name, the "
        "processor's",
    )
    group.addoption(
        "--results-folder", type=Path, default=RESULTS, help="where --save-results keeps them"
    )
    group.addoption(
        "--effort", choices=tuple(EFFORTS), default="standard", help="how much is measured"
    )
    group.addoption("--min-rounds", type=int, help="fewer or more rounds than the effort's least")


def pytest_configure(config: pytest.Config) -> None:
    """A name that fits into a file's, and no quick results among the real ones."""
    name = config.getoption("--save-results")
    if name and not re.fullmatch(r"[A-Za-z0-9.-]+", name):
        raise pytest.UsageError(f"--save-results takes letters, digits, '.' and '-': {name!r}")
    quick = config.getoption("--effort") == "quick"
    if name is not None and quick and config.getoption("--results-folder") == RESULTS:
        raise pytest.UsageError("--effort quick measures nothing: give another --results-folder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A benchmark takes as long as its peers take, and libraries' warnings are not its subject."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(0))
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def effort(request: pytest.FixtureRequest) -> Effort:
    """What --effort asks for."""
    chosen = EFFORTS[request.config.getoption("--effort")]
    least = request.config.getoption("--min-rounds")
    return chosen if least is None else replace(chosen, min_rounds=max(1, least))


@pytest.fixture(scope="session")
def machine() -> dict[str, Any]:
    """The machine as it is before anything is measured: its load then is that of others."""
    return describe_machine()


@pytest.fixture(scope="session")
def roofline(machine: dict[str, Any]) -> Roofline:
    """The machine's measured peaks."""
    return measure_roofline(BUILD)


@pytest.fixture(scope="session")
def shape_of_70m() -> Architecture:
    """The true shape of Pythia 70m."""
    return spec("70m").architecture


@pytest.fixture(scope="session")
def random_series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RandomSeries]:
    """Checkpoints made when they are first asked for; removed at the end."""
    root = tmp_path_factory.mktemp("series")
    yield RandomSeries(root)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def comparison(
    request: pytest.FixtureRequest, effort: Effort, machine: dict[str, Any], roofline: Roofline
) -> Iterator[Comparison]:
    """The comparisons of one file."""
    theme = Path(request.fspath).stem.removeprefix("bench_")
    with collecting(request.config, Comparison(theme, effort, roofline), machine) as collected:
        yield collected


@contextmanager
def collecting(
    config: pytest.Config, collected: Comparison, machine: dict[str, Any]
) -> Iterator[Comparison]:
    """What is collected is printed at the end, and kept with --save-results."""
    yield collected
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{tables.rows(collected.rows, collected.calibration)}")
    name = config.getoption("--save-results")
    if name is not None and collected.rows:
        command = " ".join(["python -m pytest", *sys.argv[1:]])
        folder = config.getoption("--results-folder")
        save(collected, folder, name or machine_name(), machine, command)
