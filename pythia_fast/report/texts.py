"""The texts of a run's sequences: the tokens that it looked at, and the tokenizer that reads them.

Where they are not given they are what `run.json` says, if that is still there and still the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pythia_fast.errors import ArgumentError, PythiaFastError
from pythia_fast.report.pieces import Pieces
from pythia_fast.report.run import Run
from pythia_fast.series import open_series
from pythia_fast.tokens import TokenDataset, load_tokenizer


@dataclass(frozen=True, slots=True)
class Texts:
    """The tokens of a run, or None, what reads them, and why something of it is missing."""

    dataset: TokenDataset | None
    pieces: Pieces
    notes: tuple[str, ...]


def texts_of(
    runs: Sequence[Run],
    tokens: TokenDataset | None,
    tokenizer: Tokenizer | None,
    cache_dir: str | Path | None = None,
) -> list[Texts]:
    """The texts of each run: `tokens` for those that looked at them, for others their own.

    ArgumentError if `tokens` are given but no run looked at them.
    """
    fits = [tokens is not None and _same(run, tokens) for run in runs]
    if tokens is not None and not any(fits):
        raise ArgumentError(
            f"the tokens given ({tokens.source}) are not those that "
            f"{', '.join(str(run.path) for run in runs)} looked at: their fingerprints differ; "
            "give the data that the sweep was given"
        )
    return [
        _of_run(run, tokens if fit else None, tokenizer, cache_dir)
        for run, fit in zip(runs, fits, strict=True)
    ]


def _of_run(
    run: Run,
    tokens: TokenDataset | None,
    tokenizer: Tokenizer | None,
    cache_dir: str | Path | None,
) -> Texts:
    notes = []
    dataset = tokens
    if dataset is None:
        dataset, note = _reopened(run, cache_dir)
        notes += [note] if note else []
    if tokenizer is None and dataset is not None:
        tokenizer, note = _found(run, cache_dir)
        notes += [note] if note else []
    return Texts(dataset, Pieces(tokenizer), tuple(notes))


def _sources(run: Run) -> Mapping[str, Any]:
    sources = run.record.get("sources")
    return sources if isinstance(sources, Mapping) else {}


def _reopened(run: Run, cache_dir: str | Path | None) -> tuple[TokenDataset | None, str | None]:
    address = _sources(run).get("tokens")
    if not isinstance(address, str):
        return None, (
            "The texts are missing: the run folder does not say where its tokens are, as those of "
            "an array or a list are nowhere. Give them to the report (tokens=, --tokens)."
        )
    try:
        dataset = TokenDataset(address, cache_dir=cache_dir)
        if not _same(run, dataset):
            return None, (
                f"The texts are missing: {address} has changed since, and is not what the run "
                "looked at. Give the data as it was (tokens=, --tokens)."
            )
    except PythiaFastError as error:
        return None, f"The texts are missing: {address} cannot be read: {error}"
    return dataset, None


def _same(run: Run, dataset: TokenDataset) -> bool:
    """Whether these are the tokens of the run's specification."""
    specification = run.record["specification"]
    wanted, sequences = specification.get("tokens"), specification.get("sequences")
    if wanted == dataset.source:
        return True  # of the Hub, with its commit
    if not isinstance(sequences, Mapping):
        return not dataset.is_remote and bool(wanted == dataset.fingerprint())
    first, count, stride = (int(sequences[key]) for key in ("first", "count", "stride"))
    rows = range(first, first + count * stride, stride)
    inside = not rows or (min(rows[0], rows[-1]) >= 0 and max(rows[0], rows[-1]) < len(dataset))
    return inside and bool(wanted == dataset.fingerprint(rows))


def _found(run: Run, cache_dir: str | Path | None) -> tuple[Tokenizer | None, str | None]:
    """The model's own tokenizer: beside its checkpoints, or on the Hub."""
    source = _sources(run).get("model")
    steps = run.table["step"].to_pylist()
    if not isinstance(source, str) or not steps:
        return None, (
            "The tokens are shown as numbers: the run folder does not say where its model is. Give "
            "a tokenizer to the report (tokenizer=, --tokenizer)."
        )
    is_folder = Path(source).is_absolute()
    model = source if is_folder else str(run.record["specification"].get("model"))
    try:
        file = open_series(model, cache_dir=cache_dir).tokenizer_file(steps[-1])
        return load_tokenizer(file), None
    except PythiaFastError as error:
        return None, f"The tokens are shown as numbers: {error}"
