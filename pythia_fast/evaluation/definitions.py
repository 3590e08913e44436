"""What is wrong with a task definition of the user's, in words that name its file and key."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pythia_fast.cache import expanded
from pythia_fast.errors import FormatError
from pythia_fast.words import nearest

_KINDS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "description")
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_BESIDE = ("tag", "group", "task_list", "include", "metadata")  # no fields of a task's, but allowed


def check_definitions(wanted: Sequence[Any], index: Mapping[str, Any], own: Sequence[Path]) -> None:
    """FormatError for the first faulty file among those that define what is `wanted`.

    To be asked when the harness has failed with them: what one file lacks a group's may give.
    `index` is the harness's, by name; looked at are files given by their path and those in the
    folders `own`, also of the members of groups.
    """
    for path in _files(wanted, index, own):
        fault = fault_of(path, index.keys())
        if fault is not None:
            raise FormatError(path, fault)


def broken_definition(name: str, folders: Sequence[Path]) -> FormatError | None:
    """What keeps the harness from knowing a name: a file that seems to define it, with its fault.

    Files that the harness cannot read it leaves out without a word.
    """
    defines = re.compile(rf"^\s*(?:task|group)\s*:\s*['\"]?{re.escape(name)}\b", re.MULTILINE)
    for folder in folders:
        for path in sorted(folder.glob("**/*.yaml")):
            if path.stem == name or defines.search(path.read_text(errors="replace")):
                fault = fault_of(path)
                if fault is not None:
                    return FormatError(path, fault)
    return None


def fault_of(path: Path, known: Collection[str] = ()) -> str | None:
    """What is wrong with a file, as far as it can be told without the data; `known` are names."""
    from lm_eval.tasks._yaml_loader import load_yaml
    from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

    try:
        config = load_yaml(path)
    except MarkedYAMLError as error:
        at = error.problem_mark
        where = "" if at is None else f" in line {at.line + 1}, column {at.column + 1}"
        return f"no YAML{where}: {error.problem or error.context}"
    except YAMLError as error:
        return f"no YAML: {' '.join(str(error).split())}"
    except FileNotFoundError as error:
        return f"it includes {error.filename}, which is not there"
    except Exception as error:  # of its functions' modules too, which are a user's own
        said = " ".join(str(error).split())
        if said.startswith("Expected YAML dict"):
            return "it holds no keys with their values, as a definition does"
        return f"{type(error).__name__}: {said}"
    if "group" in config:
        return _fault_of_group(config, known)
    if "task" not in config and "class" not in config:
        return "it has neither a key task nor a key group, so that it defines nothing"
    if not isinstance(config.get("task", ""), str):
        return f"its task is {config['task']!r}, which is no name"
    return None if "class" in config else _fault_of_task(config)


def told(error: Exception, config: Mapping[str, Any]) -> str:
    """What an error says that came when a task of this `config` was loaded."""
    said = " ".join(str(error).split())
    for key in _SPLITS:
        if isinstance(error, KeyError) and config.get(key) == error.args[0]:
            return f"its {key} is {config[key]!r}, which its data has not"
    if type(error).__name__ == "UndefinedError":  # jinja2's
        return f"a template asks for what a document of its data has not: {said}"
    if said.startswith("malformed node"):  # of ast, for what is no list in a text
        return (
            f"its doc_to_choice, {config.get('doc_to_choice')!r}, is neither a column of its data "
            "nor makes a list"
        )
    return f"{type(error).__name__}: {said}"


def config_of(name: str, index: Mapping[str, Any]) -> tuple[Path | None, Mapping[str, Any]]:
    """Where a task is defined, if in a file, and what that says."""
    entry = index.get(name)
    path = expanded(name) if entry is None and _is_path(name) else getattr(entry, "yaml_path", None)
    if path is None:
        return None, {}
    from lm_eval.tasks._yaml_loader import load_yaml

    return path, load_yaml(path, resolve_func=False)


def _fault_of_task(config: Mapping[str, Any]) -> str | None:
    from lm_eval.config.task import TaskConfig

    allowed = {field.name for field in fields(TaskConfig)}
    for key in config:
        if key not in allowed and key not in _BESIDE:
            return f"a task has {nearest('key', key, sorted(allowed))}"
    kind = config.get("output_type", _KINDS[-1])
    if kind not in _KINDS:
        return f"its output_type is {kind!r}; there are {', '.join(_KINDS)}"
    if config.get("dataset_path") is None and config.get("custom_dataset") is None:
        return "it has no dataset_path, so that nothing is known of its data"
    shots = config.get("num_fewshot")
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 0):
        return f"its num_fewshot is {shots!r}, which is no number of examples"
    return _fault_of_metrics(config.get("metric_list")) or _fault_of_templates(config)


def _fault_of_metrics(metrics: object) -> str | None:
    from lm_eval.api.metrics import mean  # noqa: F401  # makes the registry known
    from lm_eval.api.registry import aggregation_registry

    if metrics is None:
        return None
    if not isinstance(metrics, list):
        return f"its metric_list is {metrics!r}, no list of metrics"
    for each in metrics:
        if not isinstance(each, Mapping) or "metric" not in each:
            return f"an entry of its metric_list, {each!r}, has no key metric"
        how = each.get("aggregation")
        if isinstance(how, str) and how not in aggregation_registry:
            names = sorted(aggregation_registry.keys())
            return f"for its metric {each['metric']} there is {nearest('aggregation', how, names)}"
    return None


def _fault_of_templates(config: Mapping[str, Any]) -> str | None:
    from lm_eval.utils import env

    for key in _TEMPLATES:
        text = config.get(key)
        if isinstance(text, str):
            try:
                env.parse(text)
            except Exception as error:  # jinja2's, which is the harness's affair
                return f"its {key} is no template: {error}"
    return None


def _fault_of_group(config: Mapping[str, Any], known: Collection[str]) -> str | None:
    members = config.get("task")
    if not isinstance(members, list):
        return f"its task is {members!r}; that of a group is a list of names"
    for member in members:
        if isinstance(member, str) and known and member not in known:
            return f"its group has {nearest('task', member, known)}"
        if not isinstance(member, str | Mapping):
            return f"a member of its group is {member!r}, no name"
        if isinstance(member, Mapping) and not {"task", "group"} & member.keys():
            return f"a member of its group, {dict(member)!r}, has neither a task nor a group"
    return None


def _files(wanted: Sequence[Any], index: Mapping[str, Any], own: Sequence[Path]) -> Iterator[Path]:
    """The files of the user's that define what is wanted, each once."""
    left, seen = list(wanted), set[str]()
    while left:
        name = left.pop(0)
        if not isinstance(name, str) or name in seen:
            continue
        seen.add(name)
        entry = index.get(name)
        if entry is None and _is_path(name):
            yield expanded(name)
        elif entry is not None:
            path = entry.yaml_path
            if path is not None and any(path.is_relative_to(each.resolve()) for each in own):
                yield path
            left += sorted(entry.tags) if path is None else _members(entry.cfg)


def _members(config: Mapping[str, Any] | None) -> list[Any]:
    members = (config or {}).get("task")
    names = members if isinstance(members, list) else []
    return [each.get("task") if isinstance(each, Mapping) else each for each in names]


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and expanded(name).is_file()
