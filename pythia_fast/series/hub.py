"""Checkpoints from the Hugging Face Hub, at commits that are pinned when first asked for.

The branch of a step is resolved once, nothing is ever taken from `main` instead, and the bytes are
verified against the hash of the Hub's own listing. Files are kept in a store of this package, in a
disk budget; what huggingface_hub's cache has already is read there, and left alone.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from pythia_fast.cache import expanded
from pythia_fast.errors import (
    ArgumentError,
    FormatError,
    HubError,
    MissingCheckpointError,
    MissingTokensError,
)
from pythia_fast.hub.asking import COMMIT
from pythia_fast.hub.download import Downloader
from pythia_fast.hub.files import HubFile
from pythia_fast.quantities import parse_bytes
from pythia_fast.series.checkpoint import Checkpoint, open_checkpoint
from pythia_fast.series.fetching import Begun, Fetched, Fetching
from pythia_fast.series.layout import (
    CONFIG,
    INDEX_SUFFIX,
    SINGLE_FILES,
    TOKENIZER,
    read_architecture,
)
from pythia_fast.series.listed import Known, Listed
from pythia_fast.series.lookahead import LookAhead, depth
from pythia_fast.series.revision import Revision
from pythia_fast.series.surveying import Small, Surveying, source_of, total, weights_of
from pythia_fast.store import CheckpointStore, Stopped, Waiting, default_root
from pythia_fast.suite.model_spec import ModelSpec


class HubSeries:
    """The checkpoints of a model of the suite, one branch `stepN` each.

    `cache_dir` holds a store of this package, and may be a cache of huggingface_hub as well; None
    is a folder beside huggingface_hub's own cache (HF_HOME). `endpoint` None is the Hub's own
    server (HF_ENDPOINT). At most `disk_budget` bytes of weights ("500GB") are kept, None for what
    the disk holds. Every branch's commit is taken from one listing at the first need and kept: a
    branch that moves later does not matter to this object. Threads may share it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cache_dir: str | Path | None = None,
        *,
        endpoint: str | None = None,
        disk_budget: int | str | None = None,
    ) -> None:
        if spec.repo is None:
            raise ArgumentError(f"{spec.name} is no model of the Hub: its spec names no repository")
        self.spec = spec
        self.repo = spec.repo
        self.cache_dir = cache_dir
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        budget_bytes = None if disk_budget is None else parse_bytes(disk_budget)
        self._store = CheckpointStore(default_root(cache_dir), budget_bytes=budget_bytes)
        hub_cache = Path(constants.HF_HUB_CACHE) if cache_dir is None else expanded(cache_dir)
        self._fetching = Fetching(self._store, hub_cache, self.repo, self._endpoint)
        self._pinned: dict[int, str] = {}
        self._listed = Listed(self.repo, self._endpoint, self._store.listings)
        self._ahead: LookAhead | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HubSeries({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """By what it is made of, with the commits that it knows: a copy means the same weights.

        What the Hub has listed goes along too, and is not asked for again on each machine.
        It is opened anew at the other end, in a store of that machine where `cache_dir` is None;
        one that is relative is taken from the folder where it was pickled.
        """
        cache_dir = self.cache_dir
        if cache_dir is not None and not str(cache_dir).startswith("~"):
            cache_dir = Path(cache_dir).absolute()
        with self._lock:
            pinned = dict(self._pinned)
        budget_bytes = self._store.room.budget_bytes
        arguments = (self.spec, cache_dir, self._endpoint, budget_bytes)
        return _again, (type(self), *arguments, pinned, self._listed.known)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def source(self) -> str:
        """The repository's address."""
        return f"{self._endpoint}/{self.repo}"

    @property
    def folder(self) -> Path:
        """The store's folder; it need not exist yet."""
        return self._store.places.root

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step that the suite has of this model, ascending."""
        return self.spec.steps

    def commit(self, step: int) -> str:
        """The commit that the step's branch was at when first asked; one request for all steps.

        Where the Hub does not answer, or is busy, it is the commit that was listed last, as a
        warning says. UnknownStepError for a step that the suite lacks, MissingCheckpointError if
        the Hub lacks its branch, HubError if the Hub does not answer, and never has.
        """
        branch = self.spec.revision(step)
        with self._lock:
            pinned = self._pinned.get(step)
        commit = pinned or self._listed.branches().get(branch)
        if commit is None:
            raise MissingCheckpointError(
                f"{self.repo} has no branch {branch} on the Hub, so step {step} was not uploaded; "
                "leave it out, or tell its owners"
            )
        return commit

    def identity(self, step: int) -> str:
        """The step's commit: as long as it is the same, so are the weights."""
        return self.commit(step)

    def pin(self, commits: Mapping[int, str]) -> None:
        """Let these steps mean these commits from now on, wherever their branches are.

        UnknownStepError; ArgumentError for what is no commit.
        """
        for step, commit in commits.items():
            self.spec.revision(step)
            if not COMMIT.fullmatch(commit):
                raise ArgumentError(f"{commit!r} is no commit: 40 digits 0-9a-f are")
        with self._lock:
            self._pinned |= commits

    def survey(self, steps: Sequence[int]) -> Mapping[int, Revision]:
        """What the Hub lists of each step: one request for all branches, one for each new commit.

        UnknownStepError, and HubError if the Hub does not answer. What a step lacks is its `error`,
        and so is it if the Hub refuses to list it, or answers nonsense. Where the Hub is away but
        its branches were listed before, so is what is not known of a step on this machine.
        """
        for step in steps:
            self.spec.revision(step)
        if not self._pinned.keys() >= set(steps):
            self._listed.branches()  # once: where this fails, it fails for all
        return self._surveying().survey(steps)

    @contextlib.contextmanager
    def ahead(self, steps: Sequence[int]) -> Iterator[LookAhead]:
        """While entered, the files that `open` will need are fetched, in this order.

        ArgumentError if the disk budget is less than the largest of the steps needs, or if this
        object has been entered so already; WriteError if the disk has not what they need;
        UnknownStepError and HubError as in `survey`.
        """
        wanted = [
            self._fetching.from_store(revision.commit or "", revision.files)
            for revision in self.survey(steps).values()
            if revision.error is None
        ]
        largest = max(wanted, default=[], key=total)
        self._store.room.require(largest)
        look_ahead = LookAhead(
            list(dict.fromkeys(steps)),
            depth(self._store.room.budget_bytes, total(largest)),
            self._begin,
            self._finish,
            self._fetching.abandon,
            first_patience_s=self._listed.first_patience_s,
        )
        with self._lock:
            if self._ahead is not None:  # `open` could not tell whose step it takes
                raise ArgumentError(
                    f"the steps of {self.name} are fetched ahead already: leave that first, or "
                    "open another series"
                )
            self._ahead = look_ahead
        try:
            look_ahead.start()
            yield look_ahead
        finally:
            look_ahead.close()
            with self._lock:
                self._ahead = None

    def listing(self, branch: str) -> tuple[HubFile, ...]:
        """All files at the top of a branch, "main" too, at the commit that it was first seen at.

        MissingCheckpointError if there is no such branch, HubError if the Hub does not answer.
        """
        commit = self._listed.branches().get(branch)
        if commit is None:
            raise MissingCheckpointError(f"{self.repo} has no branch {branch} on the Hub")
        return tuple(self._listed.files(commit).values())

    def open(self, step: int) -> Checkpoint:
        """The step's checkpoint; what is not here is downloaded, and all of it verified.

        The errors of `commit`, and: MissingCheckpointError if the revision lacks the config or
        weights, ChecksumError if a file is wrong even after a fresh download, FormatError and
        WeightsError for what is in it, WriteError if the store cannot be written, ArgumentError if
        the disk budget has no room for it.
        """
        revision = self._require(step)
        commit = str(revision.commit)
        source = source_of(self.spec, self.repo, step, commit)
        fetched = self._fetch(step)
        try:
            listing = self._listed.files(commit)
            architecture = read_architecture(self._small(commit, listing[CONFIG]))
            weights = weights_of(commit, listing, source, self._small)
            names = [file.path for file in revision.files]
            if weights.index is not None and sorted(weights.names) != sorted(names):
                raise FormatError(
                    weights.index,
                    f"the index of {source} names {len(weights.names)} shards, but "
                    f"{len(names)} are there",
                )
            return open_checkpoint(
                weights,
                fetched.files,
                step=step,
                source=source,
                commit=commit,
                architecture=architecture,
                fetch=fetched.report,
                held=fetched.hold,
            )
        except BaseException:
            fetched.hold.close()
            raise

    def file(self, step: int, name: str) -> Path:
        """A small file of the step's revision, such as its config.json, downloaded if need be.

        The errors of `commit`; MissingCheckpointError if the revision has no such file.
        """
        commit = self.commit(step)
        file = self._listed.files(commit).get(name)
        if file is None:
            raise MissingCheckpointError(
                f"{self.repo}: {name} of commit {commit} is not on the Hub"
            )
        return self._small(commit, file)

    def tokenizer_file(self, step: int) -> Path:
        """The tokenizer.json of the step's own revision, downloaded if need be.

        MissingTokensError if the revision has none, and the errors of `commit` and `file`.
        """
        self.commit(step)  # a branch that is missing is another error than its tokenizer
        try:
            return self.file(step, TOKENIZER)
        except MissingCheckpointError as error:
            raise MissingTokensError(
                f"{self.repo} at step {step} has no {TOKENIZER}: give the path of one "
                "(tokenizer=, --tokenizer)"
            ) from error

    def _surveying(self, small: Small | None = None) -> Surveying:
        return Surveying(
            *(self.spec, self.repo, self.commit, self._listed, self._fetching),
            small or self._small,
        )

    def _require(self, step: int, small: Small | None = None) -> Revision:
        revision = self._surveying(small).revision(step)
        if revision.error is not None:
            raise revision.error
        return revision

    def _small(self, commit: str, file: HubFile) -> Path:
        with self._downloader() as downloader:
            return self._fetching.small(commit, file, downloader)

    def _fetch(self, step: int) -> Fetched:
        """The step's weights, from a look-ahead or now."""
        with self._lock:
            ahead = self._ahead
        fetched = None if ahead is None else ahead.take(step)
        if ahead is not None and ahead.received_bytes:
            self._listed.reached()
        if fetched is not None:
            return fetched
        waiting = Waiting(
            stopped=lambda: ahead is not None and ahead.stopped,
            shed=lambda: ahead is not None and ahead.shed(),
            closes=ahead is not None,
        )
        try:
            with self._downloader() as downloader:
                return self._finish(self._begin(step, waiting, downloader))
        except Stopped as error:
            raise HubError(f"step {step} of {self.name} is not fetched any more") from error

    @contextlib.contextmanager
    def _downloader(self) -> Iterator[Downloader]:
        """One for a single call; what comes through it shows that the Hub is reached."""
        with Downloader(first_patience_s=self._listed.first_patience_s) as downloader:
            try:
                yield downloader
            finally:
                if downloader.received_bytes:
                    self._listed.reached()

    def _begin(self, step: int, waiting: Waiting, downloader: Downloader) -> Begun:
        revision = self._require(
            step,
            lambda commit, file: self._fetching.small(commit, file, downloader, waiting.stopped),
        )
        commit = str(revision.commit)
        self._store.room.require(self._fetching.from_store(commit, revision.files))
        return self._fetching.begin(commit, revision.files, waiting, downloader)

    def _finish(self, begun: Begun) -> Fetched:
        """Let the small files that `open` reads come while the large ones do."""
        try:
            listing = self._listed.files(begun.commit)
            shards = [file.path for file in begun.files if file.path not in SINGLE_FILES]
            indexes = {name + INDEX_SUFFIX for name in SINGLE_FILES if shards}
            for name in sorted({CONFIG, *indexes} & listing.keys()):
                self._fetching.small(
                    begun.commit, listing[name], begun.downloader, begun.waiting.stopped
                )
        except BaseException:
            self._fetching.abandon(begun)
            raise
        return self._fetching.finish(begun)


def _again(
    kind: type[HubSeries],
    spec: ModelSpec,
    cache_dir: str | Path | None,
    endpoint: str,
    budget_bytes: int | None,
    pinned: Mapping[int, str],
    known: Known,
) -> HubSeries:
    """For pickle: a series that knows already what was listed."""
    series = kind(spec, cache_dir, endpoint=endpoint, disk_budget=budget_bytes)
    series.pin(pinned)
    series._listed.know(known)
    return series
