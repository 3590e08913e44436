"""What a code object does, without where it was written, and which names it uses."""

import dis
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType
from typing import Any

_VARIABLE = ("LOAD_GLOBAL", "LOAD_NAME")
_READ = (*_VARIABLE, "LOAD_DEREF", "LOAD_CLASSDEREF")
_WRITTEN = ("STORE_GLOBAL", "DELETE_GLOBAL")
_ITEM_WRITTEN = ("STORE_SUBSCR", "DELETE_SUBSCR")
_ONE_VALUE = frozenset(  # what puts an index there in one step
    {
        *(*_VARIABLE, "LOAD_DEREF", "LOAD_CONST", "LOAD_SMALL_INT"),
        *("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"),
    }
)
_CHANGING = frozenset(
    {
        *("add", "append", "clear", "discard", "extend", "insert"),
        *("pop", "popitem", "remove", "setdefault", "update"),
    }
)


@dataclass(frozen=True, slots=True)
class Names:
    """Names in some code: what it reads of its module, and what it changes.

    `written` are variables outside the code and `attributes` those of objects, to which something
    is assigned, or whose items or contents are changed in the plain way: `x.append(…)`, `x[i] = …`.
    """

    read: frozenset[str]
    written: frozenset[str]
    attributes: frozenset[str]


def with_nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and all that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from with_nested(constant)


def sha256(code: CodeType) -> str:
    """In hex: of instructions, names, constants and nested code, not of lines and file names."""
    return hashlib.sha256(json.dumps(_content(code)).encode()).hexdigest()


def names(codes: Iterable[CodeType]) -> Names:
    """The names in these code objects; those nested in them are not looked into."""
    read, written, attributes = set(), set(), set()
    for code in codes:
        steps = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
        read |= {each.argval for each in steps if each.opname in _VARIABLE}
        for each in steps:
            outside = each.opname == "STORE_DEREF" and each.argval in code.co_freevars
            if outside or each.opname in _WRITTEN:
                written.add(each.argval)
            elif each.opname == "STORE_ATTR":
                attributes.add(each.argval)
        changed = [one for one, then in pairwise(steps) if _is_change(then)]
        changed += [
            one
            for place, (one, index) in enumerate(pairwise(steps))
            if index.opname in _ONE_VALUE and _writes_an_item(steps[place + 2 : place + 5])
        ]
        written |= {each.argval for each in changed if each.opname in _READ}
        attributes |= {each.argval for each in changed if each.opname == "LOAD_ATTR"}
    return Names(frozenset(read), frozenset(written), frozenset(attributes))


def _is_change(step: dis.Instruction) -> bool:
    return step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _CHANGING


def _writes_an_item(steps: Sequence[dis.Instruction]) -> bool:
    """What comes after an object and an index: x[i] = 1, del x[i] or x[i] += 1.

    The last takes a copy of both, in order to read the item. Other copies are of anything: chained
    assignments and comparisons, `and`, `or`.
    """
    if steps and steps[0].opname in _ITEM_WRITTEN:
        return True
    copies = [(each.opname, each.arg) for each in steps[:2]] == [("COPY", 2)] * 2
    return (
        copies
        and any(
            each.opname == "BINARY_SUBSCR" or each.argrepr == "[]"  # the latter from Python 3.14 on
            for each in steps[2:]
        )
    )


def _content(code: CodeType) -> list[Any]:
    steps = list(dis.get_instructions(code))
    # From Python 3.13 on a class notes the line that it begins in.
    lines = {
        place
        for place, then in enumerate(steps[1:])
        if then.opname == "STORE_NAME" and then.argval == "__firstlineno__"
    }
    return [
        code.co_qualname,
        [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
        [code.co_varnames, code.co_freevars, code.co_cellvars],
        code.co_exceptiontable.hex(),
        [[each.opname, _operand(each)] for place, each in enumerate(steps) if place not in lines],
    ]


def _operand(step: dis.Instruction) -> Any:
    if step.opcode in dis.hasconst:
        return _constant(step.argval)
    return step.argval if isinstance(step.argval, str) else step.arg


def _constant(value: Any) -> Any:
    """As JSON; a set's order is another in every process."""
    if isinstance(value, CodeType):
        return _content(value)
    if isinstance(value, tuple):
        return ["tuple", *map(_constant, value)]
    if isinstance(value, frozenset):
        return ["frozenset", *sorted(json.dumps(_constant(each)) for each in value)]
    return [type(value).__name__, repr(value)]
