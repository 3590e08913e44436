"""What the Hub says of a repository, asked once, and kept for when it cannot be asked."""

import logging
import threading
from collections.abc import Mapping

from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's own
    HfHubHTTPError,
    HTTPError,
)

from pythia_fast.errors import HubError, OfflineError
from pythia_fast.hub.download import PATIENCE_S
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.revisions import list_branches, list_files
from pythia_fast.store.listings import Listings

UNREACHED_S = 20.0
"""How long files are tried for where the Hub could not even be asked, until something comes."""

_NO_ANSWER = (HTTPError, TimeoutError)

_log = logging.getLogger("pythia_fast")


class Listed:
    """The branches of a repository, and the files of its commits. Threads may share it."""

    def __init__(self, repo: str, endpoint: str, kept: Listings) -> None:
        self.first_patience_s = PATIENCE_S
        self._repo, self._endpoint, self._kept = repo, endpoint, kept
        self._branches: dict[str, str] | None = None
        self._files: dict[str, dict[str, HubFile]] = {}
        self._lock = threading.Lock()

    def branches(self) -> dict[str, str]:
        """The commits that all branches were at when first asked for, in one request.

        Without a network, or where HF_HUB_OFFLINE forbids it, as they were last seen. HubError if
        they never were, or if the Hub is there and refuses.
        """
        with self._lock:
            if self._branches is None:
                self._branches = self._ask()
            return self._branches

    @property
    def known(self) -> dict[str, str] | None:
        """The branches' commits if they were asked for already."""
        return self._branches

    def know(self, branches: Mapping[str, str]) -> None:
        """Take the branches to be there, without asking."""
        with self._lock:
            self._branches = dict(branches)

    def files(self, commit: str) -> dict[str, HubFile]:
        """The files at the top of the repository by name. The errors of `list_files`."""
        known = self._files.get(commit)
        if known is None:
            files = self._kept.files(self._repo, commit)
            if files is None:
                files = list_files(self._repo, commit, endpoint=self._endpoint)
                self.reached()
                self._kept.keep_files(self._repo, commit, files)
            known = self._files[commit] = {file.path: file for file in files}
        return known

    def reached(self) -> None:
        """The Hub has given something: if it could not be reached before, that is over."""
        self.first_patience_s = PATIENCE_S

    def _ask(self) -> dict[str, str]:
        try:
            branches = list_branches(self._repo, endpoint=self._endpoint)
        except HubError as error:
            cause = error.__cause__
            answered = isinstance(cause, HfHubHTTPError) or not isinstance(cause, _NO_ANSWER)
            if answered and not isinstance(error, OfflineError):
                raise  # with a refusal or nonsense
            last = self._kept.branches(self._repo)
            if last is None:
                raise
            if not isinstance(error, OfflineError):
                self.first_patience_s = UNREACHED_S
                _log.warning("%s; its branches are taken to be where they were last seen", error)
            return last
        self._kept.keep_branches(self._repo, branches, endpoint=self._endpoint)
        return branches
