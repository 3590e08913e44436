"""What a file of published evaluations is about: from its name, its folders and its own words.

The names are of four kinds: today's ("70m_step1000"), those of the first release ("pythia-1.4b-
deduped-0shot-global_step71500_eval_results_…"), old sizes ("intervention-1.3b-deduped-step67000"),
and files that only their folder and their configuration name ("winobias/1.4B/eval_results_…").
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pythia_fast.errors import PythiaFastError
from pythia_fast.suite import spec
from pythia_fast.suite.names import OLD_SIZES
from pythia_fast.suite.steps import TOKENS_PER_STEP

_NAME = re.compile(
    r"(?:pythia-)?(?:baseline-|(?:long-)?intervention-(?:long-)?|eval_results_)*"
    r"(?:pythia-)?(?:v1\.1-)?"
    r"(?P<size>\d+(?:\.\d+)?[mb])(?P<deduped>-deduped)?"
    r"(?:-(?P<rest>v0|bf16|long|\d+(?:\.\d+)?mtokbs|(?:data-|weight-)?seed\d+))?(?![a-z0-9.])",
    re.ASCII | re.IGNORECASE,
)
_OLD_SIZE = re.compile(
    rf"(?<![\d.])(?:{'|'.join(map(re.escape, OLD_SIZES))})(?![a-z0-9])", re.ASCII | re.IGNORECASE
)
_STEP = re.compile(r"step(\d{1,9})(?!\d)", re.ASCII)
_LAST_NUMBER = re.compile(r"_(\d{1,9})$", re.ASCII)
_SHOTS = re.compile(r"(?<!\d)(\d{1,2})shot", re.ASCII)
_SHOT_FOLDERS = {"zero-shot": 0, "five-shot": 5}
_FOLDERS = 3  # above a file, that may say something of it
_VARIANT_FOLDERS = {
    "baseline": "baseline",
    "intervention": "intervention",
    "intervene_7": "intervention",
    "intervene_21": "long-intervention",
}


_MOST = 10**9  # steps or shots; more are no number of either


@dataclass(frozen=True, slots=True)
class Subject:
    """Which checkpoint a file evaluates, and how.

    `model` is None where it is not known; `foreign` says that it is no model of the suite.
    `trained_steps` are optimizer steps, `step` is the label of the checkpoint.
    """

    model: str | None
    release: str | None = None
    variant: str | None = None
    step: int | None = None
    trained_steps: int | None = None
    num_fewshot: int | None = None
    evaluated: str | None = None
    foreign: bool = False
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def subject(path: PurePath, config: Mapping[str, Any]) -> Subject:
    """What a JSON file of `path` is about; `config` is the harness's, or empty if it is broken."""
    arguments = config.get("model_args")
    own: Mapping[str, Any] = arguments if isinstance(arguments, Mapping) else {}
    pretrained = _argument(arguments, "pretrained")
    load = own.get("load")
    evaluated = pretrained or (printable(load) if isinstance(load, str) else None)
    shots, doubts, remarks = _shots(path, config)
    if pretrained is not None and "pythia" not in pretrained.lower():
        name = pretrained.rpartition("/")[2]
        return Subject(name, num_fewshot=shots, evaluated=evaluated, foreign=True)
    files = own.get("config_files")
    words = [evaluated or "", *(files if isinstance(files, Mapping) else ())]
    match = _named(_addressed(pretrained)) or _named([path.stem])
    by_folder = None if match else _named_whole(reversed(path.parent.parts[-_FOLDERS:]))
    variant = _variant(path, pretrained, match)
    # A folder's name tells the size alone. All intervened models are deduplicated ones.
    dedup = "interven" in (variant or "") or any("dedup" in word.lower() for word in words)
    revision = _STEP.search(_argument(arguments, "revision") or "")
    said = int(revision[1]) if revision else count(own.get("iteration"))
    if revision is None and own.get("iteration") is not None and said is None:
        doubts += (f"its iteration {_short(own['iteration'])} is no step",)
    step = _named_step(path.name)
    if said is not None:
        if step not in (None, said):
            doubts += (f"its name says step {step}, its configuration step {said}",)
        step = said
    known = match or by_folder
    if known is None:
        return Subject(None, step=step, num_fewshot=shots, evaluated=evaluated, doubts=doubts)
    return _of_model(
        _model_name(known, deduped=match is None and dedup),
        variant=variant,
        release=_release(path, pretrained, words),
        step=step,
        real_steps=pretrained is None,
        shots=shots,
        evaluated=evaluated,
        doubts=doubts,
        remarks=remarks,
    )


def printable(text: str) -> str:
    """The same, with "?" for what no UTF-8 can be, as of a file's name in another encoding."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count(value: object) -> int | None:
    """A number of steps or shots; None for anything that can be none."""
    return value if type(value) is int and 0 <= value < _MOST else None


def of_repository(repo: str, checkpoint: int | None, shots: int | None) -> Subject:
    """What a row of a CSV is about, which names a repository and the label of a step."""
    match = _named(_addressed(repo))
    if match is None or "pythia" not in repo.lower():
        return Subject(repo or None, step=checkpoint, num_fewshot=shots, foreign=bool(repo))
    return _of_model(
        _model_name(match),
        variant=_variant(PurePath(), repo, match),
        release=_release(PurePath(), repo, []),
        step=checkpoint,
        real_steps=False,
        shots=shots,
        evaluated=repo,
    )


def _of_model(
    name: str,
    *,
    variant: str | None,
    release: str | None,
    step: int | None,
    real_steps: bool,
    shots: int | None,
    evaluated: str | None,
    doubts: tuple[str, ...] = (),
    remarks: tuple[str, ...] = (),
) -> Subject:
    """The suite's model of that name, with the step's label and the steps behind it.

    `real_steps` says that `step` counts optimizer steps where label and steps differ.
    """
    if release == "v0" and not name.endswith("-v0"):
        name += "-v0"
    try:
        model = spec(name)
    except PythiaFastError:
        return Subject(
            name, release, variant, step, None, shots, evaluated, foreign=True, doubts=doubts
        )
    label, trained = step, step
    ratio = (model.batch_tokens or TOKENS_PER_STEP) // TOKENS_PER_STEP
    if step is not None and ratio > 1:
        real = real_steps and step * ratio <= model.steps[-1]
        label, trained = (step * ratio, step) if real else (step, step // ratio)
    if label is not None and label not in model.steps and not _other_batches(variant):
        remarks += (f"the suite has no checkpoint {label} of {model.name}",)
    return Subject(
        model.name,
        model.release,
        variant,
        label,
        trained,
        shots,
        evaluated,
        doubts=doubts,
        remarks=remarks,
    )


def _model_name(match: re.Match[str], *, deduped: bool = False) -> str:
    """The suite's, or an older, name of a model; what only sets a variant apart is left out."""
    rest = (match["rest"] or "").lower()
    kept = f"-{rest}" if rest == "v0" or "seed" in rest else ""
    return match["size"].lower() + ("-deduped" if deduped or match["deduped"] else "") + kept


def _other_batches(variant: str | None) -> bool:
    return (variant or "").lower().endswith("mtokbs")


def _addressed(repo: str | None) -> Iterator[str]:
    """The parts of a repository's name or of a path in which a model's name may stand."""
    for part in reversed((repo or "").split("/")):
        yield part.replace("intervention-pythia-", "intervention-")


def _named(parts: Iterable[str]) -> re.Match[str] | None:
    return next((match for part in parts if (match := _NAME.match(part))), None)


def _named_whole(folders: Iterable[str]) -> re.Match[str] | None:
    """The same of folders, of which more than a beginning must be a name: others have theirs."""
    return next((match for each in folders if (match := _NAME.fullmatch(each))), None)


def _named_step(name: str) -> int | None:
    stem = name.rpartition(".")[0] or name
    match = _STEP.search(stem) or (
        _LAST_NUMBER.search(stem) if stem.startswith("eval_results_") else None
    )
    return int(match[1]) if match else None


def _variant(path: PurePath, pretrained: str | None, match: re.Match[str] | None) -> str | None:
    """What sets the model apart from the suite's of this name; None if nothing does."""
    names = [path.stem.lower(), (pretrained or "").rpartition("/")[2].lower()]
    folders = [
        _VARIANT_FOLDERS[part] for part in path.parent.parts[-_FOLDERS:] if part in _VARIANT_FOLDERS
    ]
    if any("intervention-" in name for name in names) or "intervention" in folders:
        return ("long-" if any("long" in name for name in names) else "") + "intervention"
    if folders or names[0].startswith("baseline-"):
        return folders[0] if folders else "baseline"
    rest = match["rest"] if match else None
    return rest if rest == "bf16" or _other_batches(rest) else None


def _release(path: PurePath, pretrained: str | None, words: Sequence[str]) -> str | None:
    """v0 or v1: by the folder, else by the name, since sizes were renamed between them."""
    for part in reversed(path.parts):
        if part in ("pythia-v0", "pythia-v1"):
            return part.removeprefix("pythia-")
    if "v1.1" in (pretrained or ""):
        return "v1"
    named = [path.stem, *path.parts[-3:-1], pretrained or "", *words]
    return "v0" if any(_OLD_SIZE.search(word) for word in named) else None


def _shots(
    path: PurePath, config: Mapping[str, Any]
) -> tuple[int | None, tuple[str, ...], tuple[str, ...]]:
    """The shots, by the configuration if it tells; doubts and remarks where the names differ."""
    match = _SHOTS.search(path.name)
    named = [int(match[1])] if match else []
    named += [_SHOT_FOLDERS[part] for part in path.parts[-3:-1] if part in _SHOT_FOLDERS]
    told = config.get("num_fewshot")
    said = count(told)
    if said is None:
        doubts = () if told is None else (f"{_short(told)} is no number of shots",)
        return (named[0] if named else None), doubts, ()
    wrong = sorted({each for each in named if each != said})
    if not wrong:
        return said, (), ()
    words = f"it is named {wrong[0]}-shot, but its configuration says {said} shots"
    return (said, (), (words,)) if said in named else (said, (words,), ())


def _argument(arguments: object, name: str) -> str | None:
    """A part of the harness's "pretrained=…,revision=…", also where it is a dictionary."""
    if isinstance(arguments, Mapping):
        value = arguments.get(name)
        return printable(value) if isinstance(value, str) else None
    for part in str(arguments or "").split(","):
        key, _, value = part.partition("=")
        if key.strip() == name:
            return printable(value.strip())
    return None


def _short(value: object) -> str:
    """At most forty letters of it; of an integer that has too many digits for Python, its size."""
    if isinstance(value, int) and abs(value) >= _MOST:
        return f"of about {value.bit_length()} bits"
    return printable(f"{value!r:.40}")
