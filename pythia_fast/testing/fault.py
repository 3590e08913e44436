"""How an answer of a test's Hub can be spoiled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "fail",
    "hang",
    "corrupt",
    "cut",
    "stall",
    "slow",
    "drip",
    "truncate",
    "ignore_range",
    "headers",
    "redirect headers",
]


@dataclass(slots=True)
class Fault:
    """Spoils the next `remaining` answers whose path has `contains`.

    `where` is how much of the body comes before it is spoiled, from 0 to 1; `hang_s` how long
    nothing comes before the connection is closed, None for as long as the server runs.
    """

    kind: Kind
    contains: str = ""
    remaining: int = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    bytes_per_s: float | None = None
    where: float = 0.5
    hang_s: float | None = None
