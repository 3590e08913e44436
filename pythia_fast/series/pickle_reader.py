"""Interprets the pickle in a `pytorch_model.bin` without ever running any of it.

A pickle is a program for a stack machine that may call any function. This reader knows the few
instructions that `torch.save` writes for a dictionary of tensors, and four functions by name; all
else is refused (UnsafePickleError) before anything is looked up, imported or called. A call of
`_rebuild_tensor_v2` builds a `TensorView`: which storage, from where, with which shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn

from pythia_fast.errors import FormatError, UnsafePickleError

PICKLE_LIMIT_BYTES = 2 * 2**20
"""The pickle of a 12b checkpoint has about 100 kB."""
_DIMENSIONS_LIMIT = 8

STORAGES = {
    "torch BoolStorage": "BOOL",
    "torch ByteStorage": "U8",
    "torch CharStorage": "I8",
    "torch ShortStorage": "I16",
    "torch IntStorage": "I32",
    "torch LongStorage": "I64",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch FloatStorage": "F32",
    "torch DoubleStorage": "F64",
}
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED_DICT = "collections OrderedDict"
_GLOBALS = frozenset({*STORAGES, _REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT})


@dataclass(frozen=True, slots=True)
class StorageReference:
    """A record of the archive, `data/<key>`, seen as `elements` numbers of `dtype`."""

    dtype: str
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor over a storage, as claimed; `start` and `strides` count elements."""

    storage: StorageReference
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Global:
    """A function or type that the pickle names; it is only ever compared."""

    name: str


MARK: Final = object()


def read_pickle(raw: bytes, path: str | Path, offset: int) -> dict[str, TensorView]:
    """The dictionary name -> tensor that the pickle describes.

    `path` and `offset` (of the pickle in its file) are for the errors' text. UnsafePickleError for
    any instruction or function beyond those of tensors in a dictionary, FormatError for a pickle
    that is cut, over 2 MiB, or describes anything else.
    """
    if len(raw) > PICKLE_LIMIT_BYTES:
        reason = f"the pickle has {len(raw)} bytes; {PICKLE_LIMIT_BYTES} are allowed"
        raise FormatError(path, reason, offset=offset)
    try:
        return dict(_interpret(raw))
    except Refusal as refusal:
        raise refusal.kind(path, refusal.reason, offset=offset + refusal.at) from None


class Refusal(Exception):  # noqa: N818
    """Why a pickle is refused, and at which of its bytes."""

    def __init__(self, kind: type[FormatError], reason: str, at: int) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.at = kind, reason, at


@lru_cache(maxsize=4)  # the checkpoints of a series have the same pickle, byte for byte
def _interpret(raw: bytes) -> dict[str, TensorView]:
    return Machine(raw).run()


class Machine:
    """The stack machine: every instruction either pushes plain data or is refused.

    Its work and memory are linear in the pickle's length: integers have at most 64 bits, texts are
    slices of the pickle, dictionary keys are texts (so that hashing never walks a nested value),
    and no value is compared, printed or copied. `names` and `instructions` are all that it knows.
    """

    names: frozenset[str] = _GLOBALS

    @property
    def instructions(self) -> Mapping[bytes, Callable[["Machine"], None]]:
        """What each known instruction does."""
        return INSTRUCTIONS

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.position = 0
        self.opcode_at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> dict[str, Any]:
        """The dictionary that the pickle describes. Refusal if there is anything else in it."""
        if self.raw[:2] != b"\x80\x02":
            self.unsafe("is no pickle of protocol 2, the one that torch.save writes")
        self.position = 2
        instructions = self.instructions
        while True:
            self.opcode_at = self.position
            opcode = self.take(1)
            if opcode == b".":
                return self.finish()
            instruction = instructions.get(opcode)
            if instruction is None:
                self.unsafe(
                    f"uses the instruction {opcode!r}, which no dictionary of tensors needs"
                )
            instruction(self)

    def finish(self) -> dict[str, Any]:
        """What is left on the stack at the end: the result, alone."""
        result = self.pop()
        if self.stack or self.position != len(self.raw):
            self.malformed("the pickle goes on after its end")
        if not isinstance(result, dict):
            self.malformed("the pickle holds no dictionary of tensors")
        self.check_result(result)
        return result

    def check_result(self, result: dict[str, Any]) -> None:
        """Refusal unless every entry is a tensor."""
        for name, value in result.items():
            if not isinstance(value, TensorView):
                self.malformed(f"the entry {name[:200]!r} is no tensor")

    # Reading

    def unsafe(self, reason: str) -> NoReturn:
        """Refuse what goes beyond tensors."""
        raise Refusal(UnsafePickleError, f"refused, the pickle {reason}", self.opcode_at)

    def malformed(self, reason: str) -> NoReturn:
        """Refuse what is no sound pickle."""
        raise Refusal(FormatError, reason, self.opcode_at)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self.raw):
            self.malformed("the pickle ends in the middle")
        taken = self.raw[self.position : end]
        self.position = end
        return taken

    def take_unsigned(self, count: int) -> int:
        """The next `count` bytes as an integer."""
        return int.from_bytes(self.take(count), "little")

    def take_line(self) -> str:
        """A name up to the end of its line, of at most 255 bytes."""
        end = self.raw.find(b"\n", self.position, self.position + 256)
        if end < 0:
            self.malformed("a name in the pickle has no end")
        line = self.take(end + 1 - self.position)[:-1]
        return line.decode("utf-8", "backslashreplace")

    def take_text(self) -> None:
        """Push a text: its length in four bytes, then UTF-8."""
        encoded = self.take(self.take_unsigned(4))
        try:
            self.stack.append(encoded.decode("utf-8"))
        except UnicodeDecodeError as error:
            self.malformed(f"a text in the pickle is no UTF-8: {error.reason}")

    # The stack

    def pop(self) -> Any:
        """The topmost value."""
        if not self.stack or self.stack[-1] is MARK:
            self.malformed("the pickle takes more from its stack than there is")
        return self.stack.pop()

    def pop_tuple(self, count: int) -> None:
        """Make a tuple of the `count` topmost values."""
        items = tuple(self.stack[-count:])
        if len(items) < count or any(item is MARK for item in items):
            self.malformed("the pickle takes more from its stack than there is")
        self.stack[-count:] = [items]

    def pop_to_mark(self) -> list[Any]:
        """All values above the last mark, which goes too."""
        items = []
        while self.stack and self.stack[-1] is not MARK:
            items.append(self.stack.pop())
        if not self.stack:
            self.malformed("the pickle lacks a mark on its stack")
        self.stack.pop()
        items.reverse()
        return items

    def pop_marked_tuple(self) -> None:
        """Make a tuple of all values above the last mark."""
        self.stack.append(tuple(self.pop_to_mark()))

    def push_long(self) -> None:
        """Push an integer of up to eight bytes."""
        count = self.take_unsigned(1)
        if count > 8:
            self.malformed(f"an integer of {count} bytes, more than 64 bits")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    # The memo

    def remember(self, key: int) -> None:
        """Keep the topmost value under `key`."""
        if not self.stack or self.stack[-1] is MARK:
            self.malformed("the pickle remembers a value that is not there")
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        """Push what was kept under `key`."""
        if key not in self.memo:
            self.malformed(f"the pickle recalls value {key}, which it never remembered")
        self.stack.append(self.memo[key])

    # Dictionaries

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the topmost dictionary."""
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict):
            self.malformed("the pickle sets an item of something that is no dictionary")
        if len(items) % 2:
            self.malformed("the pickle sets a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.check_key(key)
            if key in target:
                self.malformed(f"the key {repr(key)[:200]} appears twice")
            target[key] = value

    def check_key(self, key: Any) -> None:
        """Refusal unless it may be a dictionary's key, and is quick to hash."""
        if not isinstance(key, str):
            self.malformed("a dictionary's key is no text")

    def set_item(self) -> None:
        """Put one key and its value into a dictionary."""
        value = self.pop()
        self.set_items([self.pop(), value])

    def build(self) -> None:
        """`dict.__dict__ = state`: torch keeps version numbers there (`_metadata`), no tensors."""
        state = self.pop()
        if not self.stack or type(self.stack[-1]) is not dict or not isinstance(state, dict):
            self.unsafe("sets the state of something other than a dictionary")

    # Functions

    def push_global(self) -> None:
        """Push a name, if it is one of those that are known."""
        name = f"{self.take_line()} {self.take_line()}"
        if name not in self.names:
            self.unsafe(
                f"asks for {name.replace(' ', '.')!r}, which is no part of tensors in a dictionary"
            )
        self.stack.append(Global(name))

    def push_storage(self) -> None:
        """Make a storage of what torch.save writes for it."""
        match self.pop():
            case ("storage", Global(name), str(key), str(), int(elements)) if (
                name in STORAGES and type(elements) is int
            ):
                self.stack.append(StorageReference(STORAGES[name], key, elements))
            case _:
                self.malformed("a storage is not ('storage', type, key, place, elements)")

    def call(self) -> None:
        """Apply a function that is known to the tuple above it."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.name in STORAGES:
            self.unsafe("calls something that is no function for tensors")
        if not isinstance(arguments, tuple):
            self.malformed("a function is called without a tuple of arguments")
        self.apply(function.name, arguments)

    def apply(self, function: str, arguments: tuple[Any, ...]) -> None:
        """Push what the function stands for."""
        match function, arguments:
            case "collections OrderedDict", ():
                self.stack.append({})
            case "torch._utils _rebuild_tensor_v2", (
                StorageReference() as storage,
                start,
                tuple() as shape,
                tuple() as strides,
                bool(),
                dict(),
            ) if _is_geometry(start, shape, strides):
                self.stack.append(TensorView(storage, start, shape, strides))
            case "torch._utils _rebuild_parameter", (TensorView() as tensor, bool(), dict()):
                self.stack.append(tensor)
            case name, _:
                self.malformed(f"{name.replace(' ', '.')} is called with arguments unknown to it")


def _is_geometry(start: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> bool:
    """Integers of a tensor with few dimensions: the length comes first, so that time is bounded."""
    return len(shape) == len(strides) <= _DIMENSIONS_LIMIT and all(
        type(value) is int for value in (start, *shape, *strides)
    )


INSTRUCTIONS: Mapping[bytes, Callable[[Machine], None]] = {
    b"(": lambda m: m.stack.append(MARK),
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": lambda m: m.stack.append(m.take_unsigned(1)),
    b"M": lambda m: m.stack.append(m.take_unsigned(2)),
    b"J": lambda m: m.stack.append(int.from_bytes(m.take(4), "little", signed=True)),
    b"\x8a": lambda m: m.push_long(),
    b"X": lambda m: m.take_text(),
    b")": lambda m: m.stack.append(()),
    b"\x85": lambda m: m.pop_tuple(1),
    b"\x86": lambda m: m.pop_tuple(2),
    b"\x87": lambda m: m.pop_tuple(3),
    b"t": lambda m: m.pop_marked_tuple(),
    b"}": lambda m: m.stack.append({}),
    b"s": lambda m: m.set_item(),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"q": lambda m: m.remember(m.take_unsigned(1)),
    b"r": lambda m: m.remember(m.take_unsigned(4)),
    b"h": lambda m: m.recall(m.take_unsigned(1)),
    b"j": lambda m: m.recall(m.take_unsigned(4)),
    b"c": lambda m: m.push_global(),
    b"Q": lambda m: m.push_storage(),
    b"R": lambda m: m.call(),
    b"b": lambda m: m.build(),
}
"""MARK, NONE, NEWTRUE, NEWFALSE, BININT1, BININT2, BININT, LONG1, BINUNICODE, EMPTY_TUPLE, TUPLE1,
TUPLE2, TUPLE3, TUPLE, EMPTY_DICT, SETITEM, SETITEMS, BINPUT, LONG_BINPUT, BINGET, LONG_BINGET,
GLOBAL, BINPERSID, REDUCE, BUILD; PROTO and STOP are in `run`."""
