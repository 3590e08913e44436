"""What the tests of faults share. Their long forms are for `make faults`."""

import pytest

pytest.register_assert_rewrite("ray_nodes")
from ray_nodes import alone, nodes, series  # noqa: E402 - its asserts are rewritten now

__all__ = ["alone", "nodes", "series"]


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the long form is wanted."""
    return bool(request.config.getoption("--long"))
