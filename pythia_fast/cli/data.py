"""Token data as commands take it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset


def open_tokens(
    path: Path | None, tokenizer: Path | None, cache_dir: Path | None
) -> "TokenDataset | None":
    """What --tokens names: token data, or with --tokenizer a text, each line a sequence."""
    if path is None:
        return None
    from pythia_fast.errors import ArgumentError, ReadError
    from pythia_fast.tokens import TokenDataset
    from pythia_fast.tokens.npy import is_npy
    from pythia_fast.tokens.sources import encoded

    if is_npy(path) and tokenizer is not None:
        raise ArgumentError(f"{path} holds token ids, not texts: leave out --tokenizer")
    if tokenizer is None:
        has_pair = any(Path(f"{path}{ending}").exists() for ending in (".idx", ".bin"))
        if path.is_file() and not (is_npy(path) or path.suffix in (".idx", ".bin") or has_pair):
            raise ArgumentError(
                f"{path} is no .npy file and of no .idx/.bin pair; to read it as a text, each "
                "line a sequence, add --tokenizer with a tokenizer.json"
            )
        return TokenDataset(path, cache_dir=cache_dir)
    try:
        # Not splitlines(), to which a form feed and other separators inside a text are ends too.
        every = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ReadError.of(path, error) from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is no UTF-8 text: {error}") from error
    lines = [(number, line) for number, line in enumerate(every, 1) if line.strip()]
    if not lines:
        raise ArgumentError(f"{path} holds no text: one sequence a line is expected")
    places = [f"line {number} of {path}" for number, _ in lines]
    return TokenDataset(encoded([line for _, line in lines], tokenizer, places))
