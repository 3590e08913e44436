"""Interprets the pickles of training states: tensors, and plain data beside them, in dictionaries.

DeepSpeed saves the weights together with counters, settings, shapes and the states of random number
generators. What this reader knows more than that of bare tensors are lists, decimal numbers, and
the few names that such data need; NumPy's arrays, sets and byte strings are passed over: nothing is
made of them. All else is refused as ever, and nothing is ever run.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pythia_fast.errors import FormatError
from pythia_fast.series.pickle_reader import (
    INSTRUCTIONS,
    MARK,
    PICKLE_LIMIT_BYTES,
    Machine,
    Refusal,
)

_SIZE = "torch Size"
_PASSED_OVER = frozenset(
    {
        "__builtin__ set",
        "_codecs encode",
        "numpy dtype",
        *(
            f"{module} {function}"
            for module in ("numpy.core.multiarray", "numpy._core.multiarray")
            for function in ("_reconstruct", "scalar")
        ),
    }
)
OPAQUE: Final = object()
"""Stands for a value that is passed over."""


def read_plain_pickle(raw: bytes, path: str | Path, offset: int) -> Mapping[str, Any]:
    """The dictionary that the pickle describes: TensorView, plain data, OPAQUE; not to be changed.

    Values may contain each other, also themselves. `path` and `offset` and the errors are those of
    `read_pickle`.
    """
    if len(raw) > PICKLE_LIMIT_BYTES:
        reason = f"the pickle has {len(raw)} bytes; {PICKLE_LIMIT_BYTES} are allowed"
        raise FormatError(path, reason, offset=offset)
    try:
        return _interpret(raw)
    except Refusal as refusal:
        raise refusal.kind(path, refusal.reason, offset=offset + refusal.at) from None


@lru_cache(maxsize=4)  # the layers of a model have the same pickle, byte for byte
def _interpret(raw: bytes) -> dict[str, Any]:
    return _PlainMachine(raw).run()


class _PlainMachine(Machine):
    """As its parent, with a few more instructions and names; its work stays linear."""

    names = Machine.names | _PASSED_OVER | {_SIZE, "numpy ndarray"}

    @property
    def instructions(self) -> Mapping[bytes, Callable[[Machine], None]]:
        return _PLAIN_INSTRUCTIONS

    def check_result(self, result: dict[str, Any]) -> None:
        for name in result:
            if not isinstance(name, str):
                self.malformed(f"the key {name} of the outermost dictionary is no text")

    def check_key(self, key: Any) -> None:
        if not isinstance(key, (str, int)):  # of at most 64 bits
            self.malformed("a dictionary's key is neither text nor an integer")

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, list):
            self.malformed("the pickle appends to something that is no list")
        target += items

    def append_one(self) -> None:
        value = self.pop()
        self.append([value])

    def build(self) -> None:
        if len(self.stack) > 1 and self.stack[-2] is OPAQUE and self.stack[-1] is not MARK:
            self.stack.pop()
            return
        super().build()

    def apply(self, function: str, arguments: tuple[Any, ...]) -> None:
        match function, arguments:
            case "torch Size", (tuple() as shape,):
                self.stack.append(shape)
            case name, _ if name in _PASSED_OVER:
                self.stack.append(OPAQUE)
            case _:
                super().apply(function, arguments)


_PLAIN_INSTRUCTIONS: Mapping[bytes, Callable[[Any], None]] = {
    **INSTRUCTIONS,
    b"G": lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
    b"]": lambda m: m.stack.append([]),
    b"a": lambda m: m.append_one(),
    b"e": lambda m: m.append(m.pop_to_mark()),
}
"""And BINFLOAT, EMPTY_LIST, APPEND, APPENDS."""
