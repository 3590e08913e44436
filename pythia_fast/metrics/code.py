"""Which code a metric's values come from: its own, and what that uses of its module.

A class or function that lies in a file counts by its source, if that is still the code which runs.
Else, as in a notebook, it counts by its bytecode, which is the same in every process of one version
of Python.
"""

import dataclasses
import enum
import functools
import hashlib
import inspect
import io
import json
import logging
import sys
import tokenize
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from pythia_fast.metrics import bytecode
from pythia_fast.named import shown

_log = logging.getLogger("pythia_fast")

_SIMPLE = (bool, int, float, complex, str, bytes, type(None), range)
_GENERATED = "__create_fn__."  # what dataclasses make of fields, which are settings

# Modules whose names tell them, and what may move within its package or is in annotations only.
_COMMON = {"np": "numpy", "pd": "pandas", "pa": "pyarrow", "plt": "matplotlib.pyplot"}
_COMMON |= {"F": "torch.nn.functional", "nn": "torch.nn", "pf": "pythia_fast"}
_PLAIN = frozenset(
    {"abc", "collections", "dataclasses", "enum", "functools", "pythia_fast", "typing"}
)

Definition = type | FunctionType


def code_sha256(metric: object) -> str | None:
    """The sha256, in hex, of a metric's code; None of a built-in one, which has a version.

    None also where Python sees no code at all, of which the user is warned once.
    """
    root = _root(metric)
    module = _module_of(root)
    if module.startswith("pythia_fast."):
        return None
    found = _Found(module)
    if isinstance(metric, functools.partial):
        found.look_at("", metric)  # its arguments count too
    found.define(root)
    called = root if isinstance(root, FunctionType) else getattr(root, "__call__", None)  # noqa: B004
    if next(_functions_in(called), None) is None:
        _warn_unseen(name_of(metric))
        return None
    return found.sha256()


def name_of(metric: object) -> str:
    """Its class, or the function that it is, as module:name."""
    return f"{shown(module_of(metric))}:{_root(metric).__qualname__}"


def module_of(metric: object) -> str:
    """The name in `sys.modules` of the module that has its code."""
    return _module_of(_root(metric))


class _Found:
    """What was found of one module, from a metric's class or function on."""

    def __init__(self, module: str) -> None:
        self._from_source = False
        self._module = module
        self._variables: Mapping[str, Any] = {}
        self._definitions: list[tuple[str, str]] = []
        self._values: list[tuple[str, str, str]] = []
        self._written: set[tuple[str, str]] = set()
        self._seen: dict[int, object] = {}  # which also keeps them from being collected

    def sha256(self) -> str:
        """Of a source alone, if nothing else was found, it is the source's own."""
        values = sorted({each for each in self._values if each[:2] not in self._written})
        if self._from_source and len(self._definitions) == 1 and not values:
            return self._definitions[0][1]
        text = json.dumps([sorted(set(self._definitions)), values])
        return hashlib.sha256(text.encode()).hexdigest()

    def define(self, thing: Definition) -> None:
        """Add a class or a function, and what it uses."""
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        functions = _methods(thing) if isinstance(thing, type) else [thing]
        source, body = _source_of(thing, functions)
        self._from_source |= source is not None
        codes = [each.__code__ for each in functions]
        own = source or hashlib.sha256("".join(map(bytecode.sha256, codes)).encode()).hexdigest()
        self._definitions.append((thing.__qualname__, own))
        for function in functions:
            self._use(function, defaults=source is None or function is thing)
        if isinstance(thing, type):
            self._use_of_class(thing, functions, body, values=source is None)

    def look_at(self, name: str, value: object, kind: str = "variable") -> None:
        """Add a value, if there is anything of it that can be told from another."""
        told = self._told(value)
        if told is not None and not _is_told_by(name, told):
            # A function counts in itself, whatever is assigned to its name.
            kind = "definition" if told[0] == "definition" else kind
            self._values.append((kind, name, json.dumps(told)))

    def _use(self, function: FunctionType, *, defaults: bool) -> None:
        codes = list(bytecode.with_nested(function.__code__))
        self._look_up(codes, function.__globals__)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if name != "__class__":
                self.look_at(name, content)
        if defaults:
            given = (function.__defaults__ or (), function.__kwdefaults__ or {})
            if any(given):
                self.look_at(f"{function.__qualname__}()", given)

    def _use_of_class(
        self, kind: type, methods: Sequence[FunctionType], body: CodeType | None, *, values: bool
    ) -> None:
        for base in kind.__bases__:
            if self._is_own(base):
                self.define(base)
            elif values and base is not object:  # a source says it
                self._values.append(("base", kind.__qualname__, json.dumps(_elsewhere(base))))
        if body is not None:
            self._look_up([body], vars(sys.modules[self._module]))
        for name, value in sorted(vars(kind).items()):
            if any(each in methods for each in _functions_in(value)):
                for each in _functions_in(value):
                    if each not in methods and self._is_own(each):
                        self.define(each)  # one's own decorator
            elif (isinstance(value, Definition) and self._is_own(value)) or (
                values and (name == "__call__" or not name.startswith("__"))
            ):
                self.look_at(name, value, "attribute")

    def _look_up(self, codes: Sequence[CodeType], variables: Mapping[str, Any]) -> None:
        """Add what these use of the module, and remember what they change."""
        names = bytecode.names(codes)
        self._written |= {("variable", name) for name in names.written}
        self._written |= {("attribute", name) for name in names.attributes}
        for name in sorted(names.read):
            if name in variables and not name.startswith("__"):
                self.look_at(name, variables[name])

    def _told(self, value: object) -> Any:
        """A value as JSON, its functions and classes added; None for what is not looked into."""
        if type(value) in _SIMPLE:
            return [type(value).__name__, repr(value)]
        if isinstance(value, Definition) and self._is_own(value):
            self.define(value)
            return ["definition", value.__qualname__]
        if isinstance(value, (np.generic, torch.dtype, torch.device)):
            return [type(value).__name__, repr(value)]
        if isinstance(value, enum.Enum):
            return ["enum", type(value).__qualname__, value.name, self._told(value.value)]
        if id(value) in self._seen:
            return None
        self._seen[id(value)] = value
        try:
            return self._told_of_many(value)
        finally:
            del self._seen[id(value)]

    def _told_of_many(self, value: object) -> Any:
        if isinstance(value, (list, tuple)):
            return ["list", *map(self._told, value)]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted(json.dumps(self._told(each)) for each in value)]
        if isinstance(value, dict):
            return ["dict", *([self._told(key), self._told(value[key])] for key in value)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self._told, (value.func, value.args, value.keywords))]
        kind = type(value)
        if dataclasses.is_dataclass(kind) and self._is_own(kind):
            fields = {each.name: getattr(value, each.name, None) for each in _fields(value)}
            return ["dataclass", self._told(kind), self._told(fields)]
        own = [each for each in _functions_in(value) if self._is_own(each)]
        return ["definition", *(self._told(each) for each in own)] if own else _elsewhere(value)

    def _is_own(self, thing: Definition) -> bool:
        generated = isinstance(thing, FunctionType) and _is_generated(thing)
        return _module_of(thing) == self._module and not generated


def _root(metric: object) -> Definition:
    """What has the code: the function that a metric is, or its class."""
    while isinstance(metric, (functools.partial, MethodType)):
        metric = metric.func if isinstance(metric, functools.partial) else metric.__func__
    return metric if isinstance(metric, FunctionType) else type(metric)


def _module_of(thing: Definition) -> str:
    """Where it was written: a function may call itself like the one that it wraps."""
    if isinstance(thing, FunctionType):
        return str(thing.__globals__.get("__name__", ""))
    return thing.__module__


def _elsewhere(value: object) -> list[Any] | None:
    """The name of a function, class, builtin or module, which is all that is told of other code."""
    if isinstance(value, FunctionType) and _is_generated(value):
        return None
    if isinstance(value, ModuleType):
        return ["elsewhere", _text(value, "__name__"), ""]
    name = _text(value, "__qualname__") or _text(value, "__name__")
    return ["elsewhere", _text(value, "__module__"), name] if callable(value) and name else None


def _text(value: object, attribute: str) -> str | None:
    try:
        found = getattr(value, attribute, None)
    except Exception:  # whatever a user's object does
        return None
    return found if isinstance(found, str) else None


def _is_told_by(name: str, told: Sequence[Any]) -> bool:
    """Whether the code that uses this name tells what it is, as `np` does, so that it adds nothing.

    That leaves runs as they are whose metrics use no more than such.
    """
    if told[0] != "elsewhere" or told[1] is None:
        return False
    _, module, qualname = told
    if not qualname:
        return bool(module in (name, _COMMON.get(name)))
    return bool(name == qualname and module.partition(".")[0] in _PLAIN)


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value)


def _is_generated(function: FunctionType) -> bool:
    return function.__code__.co_qualname.startswith(_GENERATED)


def _methods(kind: type) -> list[FunctionType]:
    """The functions that were written in a class, without what decorators put around them."""
    found = (each for value in vars(kind).values() for each in _functions_in(value))
    inside = f"{kind.__qualname__}."
    own = {
        each.__code__.co_qualname: each
        for each in found
        if _module_of(each) == kind.__module__ and each.__code__.co_qualname.startswith(inside)
    }
    return [own[name] for name in sorted(own)]


def _functions_in(value: object, seen: set[int] | None = None) -> Iterator[FunctionType]:
    """A function, or those in a property, a class method, a wrapper and the like."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        yield value
    for each in _inside(value):
        yield from _functions_in(each, seen)


def _inside(value: object) -> list[object]:
    inside: list[object] = [inspect.getattr_static(value, "__wrapped__", None)]
    if isinstance(value, FunctionType):
        inside += [_content(cell) for cell in value.__closure__ or ()]
    elif isinstance(value, (staticmethod, classmethod, MethodType)):
        inside.append(value.__func__)
    elif isinstance(value, property):
        inside += [value.fget, value.fset, value.fdel]
    elif isinstance(value, (functools.partial, functools.cached_property)):
        inside.append(value.func)
    return inside


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _source_of(
    thing: Definition, functions: Sequence[FunctionType]
) -> tuple[str | None, CodeType | None]:
    """The sha256 of a definition's source, and the code of a class's body, if that is what runs.

    Neither where there is no file, or it was changed since, or the definition was replaced.
    """
    file = getattr(sys.modules.get(_module_of(thing)), "__file__", None)
    if file is None:
        return None, None
    try:
        with tokenize.open(file) as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = opened.read()
            whole = compile(text, file, "exec", dont_inherit=True)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None, None
    there = list(bytecode.with_nested(whole))
    body = [each for each in there if each.co_qualname == thing.__qualname__]
    running = {bytecode.sha256(each.__code__) for each in functions}
    if len(body) != 1 or not running <= {bytecode.sha256(each) for each in there}:
        return None, None
    sha256 = hashlib.sha256(_block(text, body[0].co_firstlineno).encode()).hexdigest()
    return sha256, body[0] if isinstance(thing, type) else None


def _block(text: str, line: int) -> str:
    """The definition that begins in a line, as of `inspect.getsource`.

    That looks in the line of the import, where by now there may be something else.
    """
    lines = io.StringIO(text if text.endswith("\n") else f"{text}\n").readlines()
    return "".join(inspect.getblock(lines[line - 1 :]))


@functools.cache
def _warn_unseen(name: str) -> None:
    _log.warning(
        "Python sees no code of the metric %s: where it is edited, results of the old code are "
        "taken for its own. Give it a property `settings` with a version, and raise that",
        name,
    )
