"""The model that GPT-NeoX's own configuration describes: one or several yml files.

Keys may have dashes or underscores. What is not said has GPT-NeoX's default, and what the forward
pass here does not compute is refused. A file from a stranger is read by PyYAML's safe loader only,
small, and without anchors, of which a few lines can mean gigabytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_fast.core import File
from pythia_fast.errors import FormatError, MissingCheckpointError
from pythia_fast.suite.architecture import Architecture
from pythia_fast.words import listed

YML_LIMIT_BYTES = 64 * 2**10
"""Those of Pythia have 2 kB."""
_DEPTH_LIMIT = 50
_SUFFIXES = (".yml", ".yaml")
_REQUIRED = {
    "no_weight_tying": (False, (True,)),
    "norm": ("layernorm", ("layernorm",)),
    "pos_emb": ("learned", ("rotary",)),
    "gpt_j_tied": (False, (False,)),
    "use_bias_in_norms": (True, (True,)),
    "use_bias_in_attn_linear": (True, (True,)),
    "use_bias_in_mlp": (True, (True,)),
    "use_mup": (False, (False,)),
}
"""Key -> GPT-NeoX's default, and what is implemented here."""
_GELUS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")


def find_yml(*folders: Path) -> tuple[Path, ...]:
    """The yml files of the first of the folders that has any, by name."""
    for folder in folders:
        try:
            files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
        except OSError:
            continue  # no such folder
        if files:
            return tuple(files)
    return ()


def read_yml(paths: Sequence[Path], vocab_rows: int) -> Architecture:
    """The architecture that the files describe together.

    `vocab_rows` come from the weights: GPT-NeoX pads those of its tokenizer, and writes them down
    nowhere. FormatError if a file is malformed or a model not of Pythia's kind.
    """
    settings = _join(paths)
    path = paths[0]
    for key, (default, implemented) in _REQUIRED.items():
        value = settings.get(key, default)
        if value not in implemented:
            raise FormatError(path, f"{key} is {_shown(value)}; only {implemented[0]!r} is read")
    width, heads = (_integer(settings, key, path) for key in ("hidden_size", "num_attention_heads"))
    kv_heads = settings.get("num_kv_heads")
    if kv_heads not in (None, heads):
        raise FormatError(path, f"num_kv_heads is {_shown(kv_heads)}; all {heads} are needed here")
    activation = settings.get("activation", "gelu")
    if activation not in _GELUS:
        raise FormatError(path, f"activation {_shown(activation)} is not one of gelu's")
    # As GPT-NeoX's own converter writes it: in the names of a config.json, which is read strictly.
    return Architecture.from_config(
        {
            "model_type": "gpt_neox",
            "vocab_size": vocab_rows,
            "hidden_size": width,
            "num_hidden_layers": _integer(settings, "num_layers", path),
            "num_attention_heads": heads,
            "intermediate_size": _integer(settings, "intermediate_size", path, 4 * width),
            "max_position_embeddings": _integer(settings, "max_position_embeddings", path),
            "rotary_pct": _number(settings, "rotary_pct", path, 1.0),
            "rotary_emb_base": _number(settings, "rotary_emb_base", path, 10_000.0),
            "layer_norm_eps": _number(settings, "layernorm_epsilon", path, 1e-5),
            "use_parallel_residual": settings.get("gpt_j_residual", False) is True,
            "hidden_act": activation,
        },
        path,
    )


def _join(paths: Sequence[Path]) -> Mapping[str, Any]:
    """All keys of all files, which must not contradict each other; keys with underscores."""
    settings: dict[str, Any] = {}
    for path in paths:
        for key, value in _read(path).items():
            if key in settings and not (_is_plain(value) and settings[key] == value):
                raise FormatError(path, f"{key[:80]!r} is here and in another file beside it")
            settings[key] = value
    if "num_layers" not in settings:
        names = listed((path.name for path in paths), 4)
        raise MissingCheckpointError(
            f"none of the files {names} in {paths[0].parent} says num_layers, so they do not "
            "describe a model; put GPT-NeoX's configuration, or a config.json, beside the steps"
        )
    return settings


def _read(path: Path) -> dict[str, Any]:
    """A yml file's outermost keys and values."""
    import yaml  # type: ignore[import-untyped]  # here: few need it

    file = File(path)
    if file.size > YML_LIMIT_BYTES:
        raise FormatError(path, f"{file.size} bytes; {YML_LIMIT_BYTES} are allowed")
    try:
        text = file.read(0, file.size).decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_LIMIT:
                raise FormatError(path, "nested beyond any sense")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise FormatError(path, "anchors (& and *) are not read; write the values out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        parsed = None if root is None else yaml.SafeLoader("").construct_document(root)
    except FormatError:
        raise
    except (
        *(yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError),
        AttributeError,  # of a date that is none: PyYAML takes what it matches for granted
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError(path, f"no valid yml: {reason}") from error
    if not isinstance(parsed, dict) or not isinstance(root, yaml.MappingNode):
        raise FormatError(path, "a GPT-NeoX configuration is keys and values")
    if len(root.value) != len(parsed) or not all(isinstance(key, str) for key in parsed):
        raise FormatError(path, "a key appears twice, or is no text")
    settings = {key.replace("-", "_"): value for key, value in parsed.items()}
    if len(settings) != len(parsed):
        raise FormatError(path, "a key appears twice, with dashes and with underscores")
    return settings


def _integer(settings: Mapping[str, Any], key: str, path: Path, default: int | None = None) -> int:
    value = settings.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int:
        raise FormatError(path, f"{key} is {_shown(value)}, no integer")
    return value


def _number(settings: Mapping[str, Any], key: str, path: Path, default: float) -> float:
    """Also from a text: to yml 1.1, 1e-5 without a point is one."""
    value = settings.get(key, default)
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise FormatError(path, f"{key} is {_shown(value)}, no number")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _shown(value: Any) -> str:
    return repr(value)[:80] if _is_plain(value) else f"a {type(value).__name__}"
