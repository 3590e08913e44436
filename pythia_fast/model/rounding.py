"""Float32 products stay float32, whatever a program lets torch round them to.

`torch.set_float32_matmul_precision("high")`, and several settings beside it, let a GPU multiply
float32 as TF32, with 10 bits of 23, and some processors as bfloat16. They hold for the whole
process, and so does what is done about them here: meanwhile its other threads multiply in full too.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_MKLDNN: Any = torch.backends.mkldnn  # its annotations leave `matmul` out
_BACKENDS = (torch.backends.cuda.matmul, _MKLDNN.matmul)
_FULL = frozenset({"none", "ieee"})


def is_allowed() -> bool:
    """Whether torch may round the operands of float32 products now."""
    return not all(backend.fp32_precision in _FULL for backend in _BACKENDS)


class _Settings:
    """Those of torch for such products, at some time.

    `of_all` is what its older functions know, or None where newer ones have set what these cannot
    say; each of the backends may differ from it.
    """

    def __init__(self) -> None:
        self.of_all: str | None = None
        with suppress(RuntimeError):
            self.of_all = torch.get_float32_matmul_precision()
        self.of_each = [backend.fp32_precision for backend in _BACKENDS]

    def set(self) -> None:
        """Make them hold again."""
        if self.of_all is not None:
            torch.set_float32_matmul_precision(self.of_all)
        for backend, precision in zip(_BACKENDS, self.of_each, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


class _Forbidding:
    """Counts who is inside, of all threads: the last gives back what the first has changed.

    What the program allows meanwhile is kept for then. That it forbids something cannot be seen.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._inside = 0
        self._before: _Settings | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Torch does not round the operands of float32 products until this is left."""
        with self._turn:
            self._inside += 1
            if is_allowed():  # by whoever set it last, perhaps while others were inside already
                self._before = _Settings()
                _forbid(self._before)
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                if not self._inside and self._before is not None:
                    before, self._before = self._before, None
                    if not is_allowed():
                        before.set()


def _forbid(settings: _Settings) -> None:
    if settings.of_all is not None:
        torch.set_float32_matmul_precision("highest")
    for backend in _BACKENDS:
        if backend.fp32_precision not in _FULL:
            backend.fp32_precision = "ieee"


forbidden = _Forbidding()
