"""`pytest tests/fuzz --fuzz-seconds 60` gives each parser so long, and counts its inputs."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=None, help="how long for each parser")


@pytest.fixture
def fuzz_seconds(pytestconfig: pytest.Config) -> float | None:
    """None in an ordinary run, in which a fixed number of inputs is tried."""
    found: float | None = pytestconfig.getoption("--fuzz-seconds", default=None)
    return found
