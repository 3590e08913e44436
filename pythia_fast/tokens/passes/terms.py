"""How often terms, words and numbers say, occur in token data: for many checkpoints in one pass.

A term is counted where it stands by itself, which is seen on the tokens. Pythia's tokenizer cuts a
text into words, each with the space before it, and numbers, before it merges bytes: " 24" is the
same tokens wherever it stands, and so is "24" where no single space is before it (after a newline,
a bracket or several spaces). Of "2024", though, "24" is a token as well, and of "24th". So each
term has two forms, and counts where its neighbours are no part of the same word: see `RULES`.

Legend: S steps, K terms, F forms (sequences of ids), V ids of the tokenizer, n rows of a block, L
tokens of the longest one.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from pythia_fast.core import TermCounter
from pythia_fast.errors import ArgumentError
from pythia_fast.quantities import integer
from pythia_fast.suite import SEQUENCES_PER_STEP
from pythia_fast.tokens.ahead import ahead
from pythia_fast.tokens.dataset import TokenDataset
from pythia_fast.tokens.passes.edges import DIGIT, LETTER, OTHER, Edges, edges
from pythia_fast.tokens.sources import load_tokenizer, plain
from pythia_fast.tokens.steps import require_rows, rows_between
from pythia_fast.tokens.threads import thread_count

RULES: Mapping[str, int] = MappingProxyType(
    {"spaced": LETTER | DIGIT | OTHER, "word": LETTER | DIGIT, "anywhere": 0}
)
"""What a neighbour must not be, by the rule's name.

"spaced": between spaces, newlines, or the ends of a row or document, as Razeghi et al. (2022,
arXiv:2202.07206) take numbers out of text; of "costs $24." nothing counts. "word": not joined to
another letter or digit; "24" counts there, and in "24,000" and "3.24" too. "anywhere": wherever the
tokens stand, also inside words.

The suite's own case study counts otherwise: both numbers of each window of a number, one to three
words and another number, so that a number by itself counts nothing. Its counts are not these."""


@dataclass(frozen=True, eq=False)
class Terms:
    """What to count: see `Terms.of` and `Terms.numbers`.

    Attributes:
        names: each term's text.
        forms: the sequences of ids that stand for one of them, each another.
        term_of: of each form its place in `names`.
        rule: the name of one of `RULES`.
        edges: what each id begins and ends with.
    """

    names: tuple[str, ...]
    forms: tuple[tuple[int, ...], ...]
    term_of: tuple[int, ...]
    rule: str
    edges: Edges = field(repr=False)

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        tokenizer: str | os.PathLike[str] | Tokenizer,
        *,
        rule: str = "spaced",
    ) -> "Terms":
        """Words or phrases, each with and without a space before it.

        ArgumentError for no text or one that gives no token, for two that are the same tokens, and
        for an unknown rule.
        """
        if rule not in RULES:
            raise ArgumentError(f"the rule is one of {', '.join(RULES)}, got {rule!r}")
        encoder = plain(load_tokenizer(tokenizer))
        names = tuple(texts)
        forms: dict[tuple[int, ...], int] = {}
        for number, name in enumerate(names):
            if not isinstance(name, str) or not name.strip() or name != name.strip():
                raise ArgumentError(f"a term is a text without spaces around it, got {name!r}")
            for text in (f" {name}", name):
                ids = tuple(encoder.encode(text, add_special_tokens=False).ids)
                other = forms.setdefault(ids, number)
                if other != number:
                    raise ArgumentError(f"{names[other]!r} and {name!r} are the same tokens")
        if not names or () in forms:
            raise ArgumentError("there is nothing to count: give texts that have tokens")
        return cls(names, tuple(forms), tuple(forms.values()), rule, edges(encoder))

    @classmethod
    def numbers(
        cls,
        numbers: Iterable[int],
        tokenizer: str | os.PathLike[str] | Tokenizer,
        *,
        rule: str = "spaced",
    ) -> "Terms":
        """Numbers in digits, none negative; errors as those of `of`."""
        whole = [integer(number, "a number") for number in numbers]
        if min(whole, default=0) < 0:
            raise ArgumentError(f"numbers to count are not negative, got {min(whole)}")
        return cls.of(map(str, whole), tokenizer, rule=rule)

    def counter(self) -> TermCounter:
        """What counts the forms."""
        begins, ends = self.edges
        joins = RULES[self.rule]
        # A form that has its own space begins a word whatever is before it: see the legend above.
        own_F = np.array([bool(begins[form[0]] & joins) for form in self.forms])
        return TermCounter(
            np.array([each for form in self.forms for each in form], np.int64),
            np.cumsum([0, *map(len, self.forms)], dtype=np.int64),
            np.where(own_F, joins, 0).astype(np.uint8),
            np.full(len(self.forms), joins, np.uint8),
            begins,
            ends,
        )


@dataclass(frozen=True, eq=False)
class TermCounts:
    """How often each term occurs in what each checkpoint has seen.

    Attributes:
        counts_SK: [S, K] int64.
    """

    steps: tuple[int, ...]
    terms: tuple[str, ...]
    counts_SK: npt.NDArray[np.int64] = field(repr=False)
    tokens: tuple[int, ...]  # that each step has seen
    source: str
    rule: str
    batch: int

    def at(self, step: int) -> dict[str, int]:
        """Each term's count at a step. ArgumentError if it was not counted for it."""
        if step not in self.steps:
            steps = ", ".join(map(str, self.steps))
            raise ArgumentError(f"terms were counted for the steps {steps}, not for {step}")
        return dict(zip(self.terms, self.counts_SK[self.steps.index(step)].tolist(), strict=True))

    @property
    def table(self) -> pa.Table:
        """A row for each step and term: `step`, `term`, `count`, and what it is a count of.

        That is `source` (the data), `rule` and `batch` (rows of a training step).
        """
        rows = len(self.steps) * len(self.terms)
        return pa.table(
            {
                "step": pa.array(np.repeat(np.array(self.steps, np.int64), len(self.terms))),
                "term": pa.array(list(self.terms) * len(self.steps), pa.string()),
                "count": pa.array(self.counts_SK.reshape(-1)),
                "source": pa.repeat(self.source, rows),
                "rule": pa.repeat(self.rule, rows),
                "batch": pa.repeat(self.batch, rows),
            }
        )


_Block: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[Any]]


def count_terms(
    data: str | os.PathLike[str] | TokenDataset,
    terms: Terms,
    steps: Sequence[int],
    *,
    batch: int = SEQUENCES_PER_STEP,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TermCounts:
    """Count `terms` in what checkpoints have seen of `data`, which is in training order.

    Checkpoint stepN has seen the first batch·N rows: all are read once, block by block, up to the
    last step. A row's last token, its last label, is counted with it: in the suite's data, whose
    windows overlap by one token, it is the first of another row as well.
    Terms may overlap; none is counted across the end of a row. `threads` is by default the number
    of this process's processors. `progress` is called with the rows that are done, and all of them.

    ArgumentError for steps that do not ascend or are none; RowIndexError if the data has not all
    rows.
    """
    dataset = data if isinstance(data, TokenDataset) else TokenDataset(data)
    wanted = tuple(integer(step, "a step") for step in steps)
    if not wanted or any(a >= b for a, b in pairwise((-1, *wanted))):
        raise ArgumentError(f"steps ascend from 0 or later, and one at least, got {list(steps)}")
    asked = f"what step {wanted[-1]} has seen"
    total = len(require_rows(rows_between(0, wanted[-1], batch), len(dataset), batch, asked))
    counter = terms.counter()
    found_SF = np.zeros((len(wanted), len(terms.forms)), np.int64)
    tokens, done = np.zeros(len(wanted), np.int64), 0
    workers = thread_count(threads)
    dtype = dataset.narrow_dtype

    def read(rows_n: npt.NDArray[np.int64]) -> _Block:
        return dataset.lengths_of(rows_n), dataset.gather(rows_n, dtype=dtype, threads=workers)

    for place, (first, last) in enumerate(pairwise((0, *wanted))):
        for lengths_n, ids_nL in ahead(read, dataset.blocks(rows_between(first, last, batch)), 1):
            counter.count(ids_nL, lengths_n, found_SF[place], workers)
            tokens[place] += lengths_n.sum()
            done += len(lengths_n)
            if progress is not None:
                progress(done, total)
    counts_SK = np.zeros((len(wanted), len(terms.names)), np.int64)
    for form_S, term in zip(np.cumsum(found_SF, axis=0).T, terms.term_of, strict=True):
        counts_SK[:, term] += form_S
    seen = tuple(np.cumsum(tokens).tolist())
    return TermCounts(wanted, terms.names, counts_SK, seen, dataset.source, terms.rule, batch)
