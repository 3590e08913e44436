"""What the Hub lists of each step: its files, what is here of them, and what is wrong with it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError

from pythia_fast.errors import (
    FormatError,
    HubError,
    MissingCheckpointError,
    OfflineError,
    PythiaFastError,
)
from pythia_fast.hub.asking import is_unanswered, may_pass, require_online
from pythia_fast.hub.files import HubFile
from pythia_fast.series.fetching import Fetching
from pythia_fast.series.layout import CONFIG, WeightFiles, choose_weights, weights_by_name
from pythia_fast.series.listed import Listed
from pythia_fast.series.lookahead import in_daemons
from pythia_fast.series.revision import Revision, made_bytes, weights_digest
from pythia_fast.suite.model_spec import ModelSpec

_LISTED_AT_A_TIME = 8

Small = Callable[[str, HubFile], Path]
"""A small file of a commit, fetched if need be."""


class Surveying:
    """Looks at the steps of a model, each at its `commit_of`; an index is fetched by `small`.

    Where the Hub is away, what is not known on this machine is an error of its step, and after one
    request without an answer no other is made. Threads may share it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        repo: str,
        commit_of: Callable[[int], str],
        listed: Listed,
        fetching: Fetching,
        small: Small,
    ) -> None:
        self._spec, self._repo, self._commit_of = spec, repo, commit_of
        self._listed, self._fetching, self._small = listed, fetching, small
        self._unanswered: HubError | None = None

    def survey(self, steps: Sequence[int]) -> dict[int, Revision]:
        """Each step's revision. HubError where the Hub is there and does not answer of a step."""
        return dict(zip(steps, in_daemons(self.revision, steps, _LISTED_AT_A_TIME), strict=True))

    def revision(self, step: int) -> Revision:
        """The step's files by the Hub's listing; a look into an index where that leaves a doubt."""
        commit = None
        try:
            commit = self._commit_of(step)
            listing = self._files(commit)
            source = source_of(self._spec, self._repo, step, commit)
            names = weights_by_name(listing)
            if names is None:
                names = weights_of(commit, listing, source, self._small).names
        except (MissingCheckpointError, FormatError) as error:
            return Revision(step, commit, error=error)
        except HubError as error:
            if is_unanswered(error) and self._listed.away:
                self._unanswered = self._unanswered or error
                return Revision(step, commit, error=self._named(step, error))
            if not _is_of_one(error):
                raise
            return Revision(step, commit, error=error)
        files = tuple(listing[name] for name in names)
        wrong = self._wrong(step, commit, listing, files)
        if wrong is not None:
            return Revision(step, commit, files, error=wrong)
        return Revision(
            step,
            commit,
            files,
            weights_sha256=weights_digest({file.path: file.sha256 or "" for file in files}),
            here_bytes=self._fetching.here_bytes(commit, files),
            elsewhere_bytes=total(files) - total(self._fetching.from_store(commit, files)),
            made_bytes=made_bytes(total(files), self._spec.architecture),
        )

    def _files(self, commit: str) -> dict[str, HubFile]:
        """The files of a commit, those that are known only once the Hub has not answered."""
        if self._unanswered is None or self._listed.knows(commit):
            return self._listed.files(commit)
        raise self._unanswered

    def _named(self, step: int, error: HubError) -> HubError:
        """The same as an error of this step."""
        named = type(error)(
            f"the files of step {step} of {self._spec.name} are not known on this machine: {error}"
        )
        named.__cause__ = error.__cause__
        return named

    def _wrong(
        self, step: int, commit: str, listing: Mapping[str, HubFile], files: Sequence[HubFile]
    ) -> PythiaFastError | None:
        """What stands against reading these files of a step."""
        if CONFIG not in listing:
            source = source_of(self._spec, self._repo, step, commit)
            return MissingCheckpointError(f"{source} has no {CONFIG}")
        for file in files:
            if file.sha256 is None:
                return HubError(
                    f"{self._repo}: the Hub lists no sha256 for {file.path} of commit {commit}, so "
                    "its bytes cannot be verified"
                )
        if self._fetching.here_bytes(commit, files) < total(files):
            try:
                require_online(
                    f"step {step} of {self._spec.name}, which is not all on this machine,"
                )
            except OfflineError as error:
                return error
        return None


def source_of(spec: ModelSpec, repo: str, step: int, commit: str) -> str:
    """A revision in words."""
    return f"{repo} {spec.revision(step)} at {commit[:12]}"


def weights_of(
    commit: str, listing: Mapping[str, HubFile], source: str, small: Small
) -> WeightFiles:
    """Which files of a commit are its weights. MissingCheckpointError, FormatError, HubError."""
    return choose_weights(listing.keys(), lambda name: small(commit, listing[name]), source)


def total(files: Sequence[HubFile]) -> int:
    """Their bytes."""
    return sum(file.size for file in files)


def _is_of_one(error: HubError) -> bool:
    """Whether the Hub answered, for good: what it refuses of one step says nothing of others."""
    cause = error.__cause__
    if isinstance(error, OfflineError):
        return False
    return cause is None or (isinstance(cause, HfHubHTTPError) and not may_pass(cause))
