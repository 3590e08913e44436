"""What a TokenDataset can be made of, each opened as a TokenStore."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.core import TokenStore
from pythia_fast.errors import ArgumentError, MissingTokensError, ReadError
from pythia_fast.hub.endpoint import check_endpoint
from pythia_fast.tokens.files import find_files
from pythia_fast.tokens.npy import find_npy, is_npy
from pythia_fast.tokens.remote.listing import HUB

TEXTS_A_BATCH = 1024
TOKENIZER = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
"""The token between documents, as Pythia's tokenizer has it."""

Vector = npt.NDArray[np.int64]


class Store(Protocol):
    """Rows of ids: a TokenStore, or what fetches for one."""

    def __len__(self) -> int:
        """The number of rows."""

    @property
    def dtype(self) -> str:
        """The type of the ids."""

    @property
    def documents(self) -> int | None:
        """How many documents the rows make, if it is known."""

    @property
    def bin_bytes(self) -> int:
        """The bytes that the rows take."""

    def lengths(self, rows: Vector, out: Vector) -> None:
        """Write the number of tokens of each row into `out`."""

    def gather(
        self, rows: Vector, start: int, stop: int, out: npt.NDArray[Any], threads: int
    ) -> None:
        """Copy tokens [start, stop) of each row into the rows of `out`."""

    def find_outside(self, rows: Vector, limit: int, threads: int) -> tuple[int, int, int] | None:
        """The first id outside [0, limit): position in `rows`, offset in the row, id."""

    def verify(self, threads: int) -> None:
        """Check all of an index."""


class Origin(Protocol):
    """Where ids come from. A pickled TokenDataset is its origin, opened again at the other end."""

    def open(self) -> Store:
        """Open it; every call gives the same ids, or an error."""

    def __str__(self) -> str:
        """The origin in words, for provenance."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Ids in memory, which a pickle takes with it: row i is ids[bounds[i]:bounds[i + 1]].

    Of the lines of a text, `places` says for each row which one it is: "line 3 of poems.txt".
    """

    ids: npt.NDArray[np.integer[Any]]
    bounds: npt.NDArray[np.int64]
    words: str
    places: Sequence[str] | None = None

    def open(self) -> TokenStore:
        """The rows where they lie."""
        return TokenStore.in_memory(self.ids, self.bounds)

    def __str__(self) -> str:
        return self.words


def origin_of(
    source: object, tokenizer: object = None, cache_dir: str | Path | None = None
) -> Origin:
    """What `source` stands for; see TokenDataset for what it may be."""
    if isinstance(source, (str, os.PathLike)) and is_remote(os.fspath(source)):
        _no_tokenizer(tokenizer, "a data set of the Hub")
        check_endpoint()
        from pythia_fast.tokens.remote.store import pin  # here: it imports huggingface_hub

        return pin(os.fspath(source), cache_dir)
    if isinstance(source, (str, os.PathLike)) and is_npy(source):
        _no_tokenizer(tokenizer, "a .npy file")
        return find_npy(source)
    if isinstance(source, (str, os.PathLike)):
        _no_tokenizer(tokenizer, "a file pair")
        return find_files(source)
    if isinstance(source, Memory):
        return source
    if _is_texts(source):
        return encoded(cast("Sequence[str]", source), tokenizer)
    _no_tokenizer(tokenizer, "an array of ids")
    return array(source)


def is_remote(source: str) -> bool:
    """Whether a text means a data set of the Hub."""
    return source.startswith(HUB)


def array(source: object) -> Memory:
    """Rows of an integer array or tensor [N, L], without a copy where it is contiguous."""
    detach = getattr(source, "detach", None)  # a torch tensor, wherever it lies
    try:
        ids_NL = np.asarray(detach().cpu() if detach is not None else source)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"a {type(source).__name__} is no token data ({error}); give the path of an .idx/.bin "
            "pair or a .npy file, an integer array [N, L], or texts as TokenDataset(texts, "
            "tokenizer=…)"
        ) from error
    if ids_NL.dtype.kind not in "iu" or ids_NL.ndim != 2:
        raise ArgumentError(
            f"token ids must be an integer array [N, L], got {ids_NL.dtype} of shape "
            f"{list(ids_NL.shape)}"
        )
    native = ids_NL.astype(ids_NL.dtype.newbyteorder("="), copy=False)
    flat = np.require(native, requirements=["C", "A"]).reshape(-1)
    rows, length = ids_NL.shape
    bounds = np.arange(rows + 1, dtype=np.int64) * length
    return Memory(flat, bounds, f"{native.dtype} array {list(ids_NL.shape)}")


def encoded(texts: Sequence[str], tokenizer: object, places: Sequence[str] | None = None) -> Memory:
    """Rows of a list of texts, no special tokens added.

    ArgumentError for a text that gives no token, naming it, by its place if it is given.
    """
    if tokenizer is None:
        raise ArgumentError(
            "these are texts, which need a tokenizer: give TokenDataset(texts, tokenizer=…) in "
            "their place, with the path of a tokenizer.json or a tokenizers.Tokenizer"
        )

    def called(number: int) -> str:
        return f"text {number}" if places is None else places[number]

    encoder = plain(load_tokenizer(tokenizer))
    pieces: list[npt.NDArray[np.uint32]] = []
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(f"{called(number)} is not valid Unicode: {error}") from error
    for begin in range(0, len(texts), TEXTS_A_BATCH):
        batch = list(texts[begin : begin + TEXTS_A_BATCH])
        for number, encoding in enumerate(
            encoder.encode_batch(batch, add_special_tokens=False), start=begin
        ):
            if len(encoding.ids) == 0:
                raise ArgumentError(f"{called(number)} gives no tokens: {texts[number]!r}")
            pieces.append(np.array(encoding.ids, dtype=np.uint32))
    bounds = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return Memory(np.concatenate(pieces), bounds, f"{len(texts)} texts", places)


def load_tokenizer(source: object) -> Tokenizer:
    """A tokenizer from the path of its tokenizer.json, or of a folder that holds one.

    One that is made already is returned. MissingTokensError if there is none, ReadError if it
    cannot be looked for, ArgumentError if the file is no tokenizer.
    """
    if isinstance(source, Tokenizer):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            "a tokenizer is the path of a tokenizer.json, or of its folder, or a "
            f"tokenizers.Tokenizer, not {source!r}"
        )
    path = expanded(source)
    try:
        if is_folder := path.is_dir():
            path /= TOKENIZER
        there = path.is_file()
    except OSError as error:  # as of a folder that may not be looked into
        raise ReadError.of(path, error) from error
    if not there:
        missing = f"the folder holds no {TOKENIZER}" if is_folder else "there is no such file"
        raise MissingTokensError(
            f"no tokenizer at {os.fspath(source)!r}: {missing}; give the path of a {TOKENIZER}, or "
            "of its folder"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ArgumentError(f"{path} holds no tokenizer: {error}") from error


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the padding and truncation that it may be set to; it is not changed."""
    if tokenizer.padding is None and tokenizer.truncation is None:
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _is_texts(source: Any) -> bool:
    if not isinstance(source, Sequence) or len(source) == 0:
        return False
    texts = sum(isinstance(item, str) for item in source)
    if 0 < texts < len(source):
        raise ArgumentError(f"of {len(source)} texts only {texts} are str")
    return texts > 0


def _no_tokenizer(tokenizer: object, source: str) -> None:
    if tokenizer is not None:
        raise ArgumentError(f"tokenizer= is for a list of texts; {source} holds ids already")
