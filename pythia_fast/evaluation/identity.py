"""What determines what tasks ask and how answers are rated, as plain JSON for a specification."""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def task_identity(task: Any) -> dict[str, Any]:
    """Of one of the harness's tasks whose requests are built.

    Besides the questions that means whole documents, which hold the answers that are looked for,
    and the files of the functions that a definition names, as these call others.
    """
    documents = {each.doc_id: each.doc for each in task.instances}
    return {
        "version": str(task.VERSION),
        "num_fewshot": task.get_config("num_fewshot"),
        "config": _digest([_told(task.dump_config())]),
        "code": _digest(_sources([type(task), *_callables(vars(task.config))])),
        "requests": _digest([each.request_type, each.args, each.doc_id] for each in task.instances),
        "documents": _digest([number, documents[number]] for number in sorted(documents)),
    }


def group_identity(group: Any) -> dict[str, Any]:
    """Of one of the harness's groups: whose results it has, and how they become one."""
    metrics = [dataclasses.asdict(each) for each in group.aggregate_metric_list or ()]
    functions = [each["aggregation"] for each in metrics if callable(each["aggregation"])]
    return {
        "version": str(group.version),
        "members": sorted(group.child_names),
        "config": _digest([group.alias, metrics, _told({"metadata": group.metadata})]),
        "code": _digest(_sources(functions)),
    }


def _callables(value: object) -> Iterator[Callable[..., Any]]:
    """The functions in a configuration, at any depth."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _callables(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _callables(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _callables(vars(value))
    elif callable(value):
        yield getattr(value, "func", value)


def _sources(functions: Iterable[Callable[..., Any]]) -> list[str]:
    """The sha256 of each file that one comes from. The harness's own have its version.

    Of a script or notebook it is that of the function or class alone: the rest of it changes for
    other reasons.
    """
    found = find_spec("lm_eval")
    own = Path(found.origin).parent if found is not None and found.origin else None
    files: set[Path] = set()
    texts: set[bytes] = set()
    for function in map(inspect.unwrap, functions):
        written = function if inspect.isroutine(function) or inspect.isclass(function) else None
        source: Any = type(function) if written is None else written  # an object: of its class
        try:
            if source.__module__ == "__main__":
                texts.add(inspect.getsource(source).encode())
            elif name := inspect.getsourcefile(source):
                files.add(Path(name).resolve())
        except (TypeError, OSError):
            continue  # built in, or typed in
    texts |= {
        file.read_bytes()
        for file in files
        if file.is_file() and (own is None or not file.is_relative_to(own.resolve()))
    }
    return sorted(hashlib.sha256(text).hexdigest() for text in texts)


def _told(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without where its file lies."""
    metadata = dict(config.get("metadata") or {})
    metadata.pop("config_source", None)
    return config | {"metadata": metadata}


def _plain(value: object) -> object:
    """What JSON lacks, the same in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    return _ADDRESS.sub("", str(value))


def _digest(values: Iterable[Any]) -> str:
    """Of values one after the other: all at once would be long."""
    whole = hashlib.sha256()
    for value in values:
        try:
            text = json.dumps(value, sort_keys=True, default=_plain)
        except TypeError:  # keys that are no text, or have no order
            text = _ADDRESS.sub("", repr(value))
        whole.update(text.encode() + b"\n")
    return whole.hexdigest()
