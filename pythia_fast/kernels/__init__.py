"""The operations that cost time, each beside its plain definition in `reference`."""

from typing import Literal

Gelu = Literal["none", "tanh"]
"""As torch names them: exact, by erf, and the approximation by tanh."""
