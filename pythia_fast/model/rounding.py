"""Float32 products stay float32, whatever a program lets torch round them to.

`torch.set_float32_matmul_precision("high")`, and several settings beside it, let a GPU multiply
float32 as TF32, with 10 bits of 23, and some processors as bfloat16. They hold for the whole
process, and so does what is done about them here: meanwhile its other threads multiply in full too.
"""

import os
import threading
from typing import Any

import torch

_MKLDNN: Any = torch.backends.mkldnn  # its annotations leave `matmul` out
_BACKENDS = (torch.backends.cuda.matmul, _MKLDNN.matmul)
_FULL = frozenset({"none", "ieee"})


def is_allowed() -> bool:
    """Whether torch may round the operands of float32 products now."""
    return not all(backend.fp32_precision in _FULL for backend in _BACKENDS)


class Forbidding:
    """Counts the threads inside: the last gives back what was changed.

    What the program allows meanwhile holds at once, also for those inside, until the next enters;
    that it forbids something cannot be seen, and is lost.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._inside: set[int] = set()
        self._of_all: str | None = None
        self._of_each: list[str] | None = None  # by backend, None where nothing was changed
        os.register_at_fork(after_in_child=self._forked)

    @property
    def here(self) -> bool:
        """Whether this thread is inside."""
        return threading.get_ident() in self._inside

    def enter(self) -> None:
        """Torch rounds no operand of a float32 product until `leave`."""
        with self._turn:
            self._inside.add(threading.get_ident())
            if is_allowed():
                self._note()
                if self._of_all is not None:
                    torch.set_float32_matmul_precision("highest")
                for backend in _BACKENDS:
                    if backend.fp32_precision not in _FULL:
                        backend.fp32_precision = "ieee"

    def leave(self) -> None:
        """Let this thread be outside, as it may be already."""
        with self._turn:
            self._inside.discard(threading.get_ident())
            if not self._inside:
                self._give_back()

    def _note(self) -> None:
        """What the program has set, where that is not what was set here."""
        now = [str(backend.fp32_precision) for backend in _BACKENDS]
        if self._of_each is None:
            self._of_each = now
        for place, precision in enumerate(now):
            if precision not in _FULL:
                self._of_each[place] = precision
        of_all = _precision_of_all()
        if of_all != "highest":
            self._of_all = of_all or self._of_all

    def _give_back(self) -> None:
        if self._of_each is None:
            return
        of_all, self._of_all = self._of_all, None
        of_each, self._of_each = self._of_each, None
        now = [backend.fp32_precision for backend in _BACKENDS]
        if of_all is not None and _precision_of_all() in ("highest", None):
            torch.set_float32_matmul_precision(of_all)
        for backend, before, precision in zip(_BACKENDS, of_each, now, strict=True):
            wanted = before if precision == "ieee" else precision  # else it was set meanwhile
            if backend.fp32_precision != wanted:
                backend.fp32_precision = "none"  # it may have followed what is set for all
            if backend.fp32_precision != wanted:
                backend.fp32_precision = wanted

    def _forked(self) -> None:
        """Of a child's threads only that which forked is there."""
        self._turn = threading.RLock()
        self._inside &= {threading.get_ident()}
        if not self._inside:
            self._give_back()


def _precision_of_all() -> str | None:
    """What torch's older functions know, or None where newer ones set what these cannot say."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


forbidding = Forbidding()
