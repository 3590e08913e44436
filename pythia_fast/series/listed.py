"""What the Hub says of a repository, asked once, and kept for when it cannot be asked."""

import logging
import threading
from collections.abc import Mapping

from pythia_fast.errors import HubError, OfflineError
from pythia_fast.hub.asking import is_unanswered
from pythia_fast.hub.download import PATIENCE_S
from pythia_fast.hub.files import HubFile
from pythia_fast.hub.revisions import list_branches, list_files
from pythia_fast.store.listings import Listings

UNREACHED_S = 20.0
"""How long files are tried for where the Hub could not even be asked, until something comes."""

Known = tuple[Mapping[str, str] | None, dict[str, dict[str, HubFile]]]
"""The commits of branches, None if nobody has asked, and the files of commits by name."""

_log = logging.getLogger("pythia_fast")


class Listed:
    """The branches of a repository, and the files of its commits. Threads may share it.

    Attributes:
        away: whether the Hub did not answer when it was asked for the branches, or may not be
            asked, and has not given anything since.
        first_patience_s: how long files are to be tried for until something comes.
    """

    def __init__(self, repo: str, endpoint: str, kept: Listings) -> None:
        self.away = False
        self.first_patience_s = PATIENCE_S
        self._repo, self._endpoint, self._kept = repo, endpoint, kept
        self._branches: dict[str, str] | None = None
        self._files: dict[str, dict[str, HubFile]] = {}
        self._lock = threading.Lock()

    def branches(self) -> dict[str, str]:
        """The commits that all branches were at when first asked for, in one request.

        Without a network or an answer, or where HF_HUB_OFFLINE forbids it, as they were last seen.
        HubError if they never were, or if the Hub is there and refuses.
        """
        with self._lock:
            if self._branches is None:
                self._branches = self._ask()
            return self._branches

    @property
    def known(self) -> Known:
        """What was asked for already, for `know`."""
        return self._branches, dict(self._files)

    def know(self, known: Known) -> None:
        """Take the branches and files to be these, without asking."""
        with self._lock:
            branches, self._files = known
            self._branches = None if branches is None else dict(branches)

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

    def knows(self, commit: str) -> bool:
        """Whether `files` of a commit are on this machine."""
        return commit in self._files or self._kept.files(self._repo, commit) is not None

    def reached(self) -> None:
        """The Hub has given something: if it could not be reached before, that is over."""
        self.first_patience_s = PATIENCE_S
        self.away = False

    def _ask(self) -> dict[str, str]:
        try:
            branches = list_branches(self._repo, endpoint=self._endpoint)
        except HubError as error:
            if not is_unanswered(error):
                raise  # with a refusal or nonsense
            last = self._kept.branches(self._repo)
            if last is None:
                raise
            self.away = True
            if not isinstance(error, OfflineError):
                self.first_patience_s = UNREACHED_S
                _log.warning(
                    "%s; going on with what is on this machine: its branches are taken to be where "
                    "they were last seen",
                    error,
                )
            return last
        self._kept.keep_branches(self._repo, branches, endpoint=self._endpoint)
        return branches
