"""What the tests of faults share."""

import pytest

pytest.register_assert_rewrite("ray_nodes")
from ray_nodes import alone, nodes, series  # noqa: E402 - its asserts are rewritten now

__all__ = ["alone", "nodes", "series"]
