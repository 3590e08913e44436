"""What the tests of faults share. Their long forms are for `make faults`."""

import pytest


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the long form is wanted."""
    return bool(request.config.getoption("--long"))
