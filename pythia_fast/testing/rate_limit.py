"""The Hub's rate limits: so many requests of a sort in a window, then 429 until the next one."""

import math
import threading
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimit:
    """Counts requests in fixed windows, of which the first begins with the first request.

    `retry_after` says whether a refusal has a Retry-After beside the Hub's own RateLimit.
    """

    sort: str
    requests: int
    window_s: float
    retry_after: bool
    _begun_s: float = -math.inf
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, now_s: float | None = None) -> tuple[bool, dict[str, str]]:
        """Whether one more request is within the limit, and the headers that go with the answer."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            if now_s >= self._begun_s + self.window_s:
                self._begun_s, self._used = now_s, 0
            allowed = self._used < self.requests
            self._used += allowed
            left = self.requests - self._used
            wait_s = math.ceil(self._begun_s + self.window_s - now_s)
        headers = {
            "RateLimit": f'"{self.sort}";r={left};t={wait_s}',
            "RateLimit-Policy": (
                f'"fixed window";"{self.sort}";q={self.requests};w={math.ceil(self.window_s)}'
            ),
        }
        if self.retry_after and not allowed:
            headers["Retry-After"] = str(wait_s)
        return allowed, headers
