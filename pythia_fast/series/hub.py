"""Checkpoints from the Hugging Face Hub, at commits that are pinned when first asked for.

Downloading and caching is huggingface_hub's work. What it leaves out is here: the branch of a step
is resolved once, nothing is ever taken from `main` instead, and the bytes are verified against the
sha256 of the Hub's own listing, over the very file that is then read.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from pythia_fast.core import File
from pythia_fast.digest import sha256
from pythia_fast.errors import (
    ArgumentError,
    ChecksumError,
    HubError,
    MissingCheckpointError,
)
from pythia_fast.hub.asking import COMMIT, LIBRARY, SHA256, ask
from pythia_fast.series.checkpoint import Checkpoint, CheckpointFile, open_checkpoint
from pythia_fast.series.layout import (
    CONFIG,
    INDEX_LIMIT_BYTES,
    choose_weights,
    read_architecture,
)
from pythia_fast.suite.model_spec import ModelSpec

T = TypeVar("T")


class HubSeries:
    """The checkpoints of a model of the suite, one branch `stepN` each.

    `cache_dir` None is huggingface_hub's own cache, `endpoint` None its own server (HF_ENDPOINT).
    Every branch's commit is taken from one listing at the first need and kept: a branch that moves
    later does not matter to this object. Threads may share it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cache_dir: str | Path | None = None,
        *,
        endpoint: str | None = None,
    ) -> None:
        if spec.repo is None:
            raise ArgumentError(f"{spec.name} is no model of the Hub: its spec names no repository")
        self.spec = spec
        self.repo = spec.repo
        self.cache_dir = cache_dir
        self._api = HfApi(endpoint=endpoint, library_name=LIBRARY)
        self._pinned: dict[str, str] | None = None
        self._pinning = threading.Lock()

    def __repr__(self) -> str:
        return f"HubSeries({self.name!r})"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def source(self) -> str:
        """The repository's address."""
        return f"{self._api.endpoint}/{self.repo}"

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step that the suite has of this model, ascending."""
        return self.spec.steps

    def commit(self, step: int) -> str:
        """The commit that the step's branch was at when first asked; one request for all steps.

        UnknownStepError for a step that the suite lacks, MissingCheckpointError if the Hub lacks
        its branch, HubError if the Hub does not answer.
        """
        branch = self.spec.revision(step)
        with self._pinning:
            if self._pinned is None:
                self._pinned = self._list_branches()
        commit = self._pinned.get(branch)
        if commit is None:
            raise MissingCheckpointError(
                f"{self.repo} has no branch {branch} on the Hub, so step {step} was not uploaded; "
                "leave it out, or tell its owners"
            )
        return commit

    def identity(self, step: int) -> str:
        """The step's commit: as long as it is the same, so are the weights."""
        return self.commit(step)

    def open(self, step: int) -> Checkpoint:
        """Download what the step needs and is not cached, verify it, and open it.

        The errors of `commit`, and: MissingCheckpointError if the revision lacks the config or
        weights, ChecksumError if a file is wrong even after a fresh download, FormatError and
        WeightsError for what is in it, WriteError if the cache cannot be written.
        """
        commit = self.commit(step)
        source = f"{self.repo} {self.spec.revision(step)} at {commit[:12]}"
        listing = self._list_files(commit)
        if CONFIG not in listing:
            raise MissingCheckpointError(f"{source} has no {CONFIG}")
        architecture = read_architecture(self._download_text(listing[CONFIG], commit))
        weights = choose_weights(
            listing.keys(), lambda name: self._download_text(listing[name], commit), source
        )
        return open_checkpoint(
            weights,
            [self._download_verified(listing[name], commit) for name in weights.names],
            step=step,
            source=source,
            commit=commit,
            architecture=architecture,
        )

    def file(self, step: int, name: str) -> Path:
        """A small file of the step's revision, such as its tokenizer.json, downloaded if need be.

        The errors of `commit`; MissingCheckpointError if the revision has no such file. The Hub
        promises no sha256 for it.
        """
        return self._download(name, self.commit(step))

    def _list_branches(self) -> dict[str, str]:
        refs = self._ask("its branches", partial(self._api.list_repo_refs, self.repo))
        pinned = {branch.name: branch.target_commit for branch in refs.branches}
        for branch, commit in pinned.items():
            if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
                raise HubError(f"{self.repo}: the Hub says that {branch} is at {commit!r}")
        return pinned

    def _list_files(self, commit: str) -> dict[str, RepoFile]:
        """The files at the top of the repository by name."""

        def list_all() -> list[RepoFile]:
            tree = self._api.list_repo_tree(self.repo, revision=commit)
            return [entry for entry in tree if isinstance(entry, RepoFile)]

        entries = self._ask(f"the files of commit {commit}", list_all)
        return {entry.path: entry for entry in entries if "/" not in entry.path}

    def _download(self, name: str, commit: str, *, fresh: bool = False) -> Path:
        download = partial(
            self._api.hf_hub_download,
            self.repo,
            name,
            revision=commit,
            cache_dir=self.cache_dir,
            force_download=fresh,
        )
        return Path(str(self._ask(f"{name} of commit {commit}", download)))

    def _download_text(self, entry: RepoFile, commit: str) -> Path:
        """A config or an index, for which the Hub promises no sha256."""
        if entry.size > INDEX_LIMIT_BYTES:
            raise HubError(
                f"{self.repo}: {entry.path} has {entry.size} bytes; {INDEX_LIMIT_BYTES} are allowed"
            )
        return self._download(entry.path, commit)

    def _download_verified(self, entry: RepoFile, commit: str) -> tuple[CheckpointFile, File]:
        """A weights file, open, whose bytes have the sha256 that the Hub lists for it."""
        promised = entry.lfs.sha256 if entry.lfs is not None else None
        if promised is None or not SHA256.fullmatch(promised):
            raise HubError(
                f"{self.repo}: the Hub lists no sha256 for {entry.path} of commit {commit}, so "
                "its bytes cannot be verified"
            )
        for fresh in (False, True):
            path = self._download(entry.path, commit, fresh=fresh)
            file = File(path)
            if file.size == entry.size and sha256(file) == promised:
                return CheckpointFile(entry.path, path, file.size, promised), file
        raise ChecksumError(
            f"{self.repo}: {entry.path} of commit {commit} does not have the sha256 {promised} "
            f"that the Hub lists, even after a fresh download; the wrong bytes are in {path}"
        )

    def _ask(self, what: str, request: Callable[[], T]) -> T:
        return ask(
            self.repo, what, request, endpoint=self._api.endpoint, missing=MissingCheckpointError
        )
