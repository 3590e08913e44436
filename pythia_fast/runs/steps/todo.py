"""What is left to do in a run folder: which steps are loaded, and which take others' results."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from pythia_fast.errors import FormatError, OnError, RunMismatchError, SweepError
from pythia_fast.model import ends_context
from pythia_fast.runs.folder.parts import Failure
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.folder.unchanged import is_unchanged, keep_unchanged
from pythia_fast.runs.job import DamagedTwinError, Job, check_unchanged
from pythia_fast.runs.progress import Progress
from pythia_fast.runs.steps.continuing import survey_of_run
from pythia_fast.runs.steps.same_files import has_changed, with_digests
from pythia_fast.runs.steps.share import Dealt, Share, steps_of_share
from pythia_fast.runs.steps.survey import Survey, weights_sha256
from pythia_fast.runs.steps.telling import (
    missing_words,
    reason_words,
    share_words,
    work_words,
)
from pythia_fast.runs.steps.waiting import Waiting
from pythia_fast.series import Ahead, CheckpointSeries
from pythia_fast.series.revision import Revision


class Todo:
    """The steps of a job: `queue` are to be loaded, in this order; the others are done or wait.

    Of steps with the same weights one is in the queue, and the others take its results when they
    are on the disk, unless the job has every step look at something of its own.

    A step that fails, or cannot be had, is SweepError, or with `on_error` "skip" recorded and left
    out.

    Attributes:
        queue: steps to be loaded. It grows when a step fails of which another has the weights.
        steps: all steps that are this process's: those of its share, if it has one.
        finished: how many of them have all their results on the disk.
        now: the step that is being computed, if one is.
        changed: called when `finished` or `now` have changed.
    """

    def __init__(
        self,
        series: CheckpointSeries,
        job: Job,
        folder: RunFolder,
        progress: Progress,
        budget_bytes: int | None,
        on_error: OnError,
        share: Share | None = None,
    ) -> None:
        self._series, self._job, self._folder = series, job, folder
        self._progress, self._budget_bytes = progress, budget_bytes
        self._on_error, self._share = on_error, share
        self._survey = Survey({}, ())
        self._digests: dict[int, str] = {}  # of the weights of what is done
        self._waiting = Waiting()
        self.queue: deque[int] = deque()
        self.steps = tuple(job.steps)
        self.finished = 0
        self.now: int | None = None
        self.changed: Callable[[], None] = _nothing

    @property
    def left(self) -> tuple[int, ...]:
        """All steps whose results are still to be written."""
        return (*self.queue, *self._waiting.steps)

    def survey(self, *, dealt: Dealt | None = None) -> Dealt:
        """Find out what there is and what is left, before anything is downloaded or computed.

        What of the call is `dealt` out among the shares already decides which of these steps are
        this one's; what is dealt out then is returned.

        SweepError that names every step that cannot be had, unless they are to be skipped;
        RunMismatchError if the folder's results are of other weights; HubError.
        """
        self._survey = survey_of_run(self._series, self._job, self._folder, self._progress.say)
        dealt = dealt or Dealt()
        groups = len(self._survey.alike(self.steps))
        if self._share is not None:
            self._take_share(self._share, dealt)
        for line in self._survey.known():
            self._progress.say(line)
        self._sort()
        return dealt.and_a_model(groups)

    def look_again(self) -> None:
        """Leave out what other processes have finished since the survey. The errors of `survey`."""
        for step in tuple(self.queue):
            if self._is_done_or_failed(step):
                self.queue.remove(step)

    def begin_at(self, part: float) -> None:
        """Go through the queue from this part of it on, and what is before that in the end."""
        self.queue.rotate(-int(part * len(self.queue)))

    def _take_share(self, share: Share, dealt: Dealt) -> None:
        """Leave to others what is not in the share: from here on nothing is said of it."""
        self.steps = steps_of_share(share, self._job, self._survey, self._folder, dealt)
        self._survey = self._survey.narrowed(self._series, self.steps)
        others = set(self._job.steps) - set(self.steps)
        self._progress.leave_to_others(len(others), sum(map(self._job.tokens, others)))
        self._progress.say(share_words(share, len(self.steps), len(self._job.steps)))

    def revision(self, step: int) -> Revision:
        """What is known of a step."""
        return self._survey.revisions[step]

    def remarks(self, step: int) -> tuple[str, ...]:
        """What is known to be odd with a step."""
        return self._survey.remarks(step)

    def weights_sha256(self, step: int, first: int) -> str | None:
        """The digest of a step's weights, which takes the results of `first`."""
        known = self.revision(step).weights_sha256 or self._waiting.sha256_of((first,))
        if known is None:  # another process has given `first` its results, or computed them
            origins = self._job.origins(first)
            known = origins[0]["weights_sha256"] if origins else None
        return known

    def finished_with(self, sha256: str) -> int | None:
        """A step with these weights that was computed, if its results are also another step's."""
        return self._waiting.finished_with(sha256) if self._job.sharing else None

    def fetching(self, ahead: Ahead) -> None:
        """The files of the queue are being fetched; nobody else changes it."""

    def begin(self, step: int) -> None:
        """A step is about to be computed."""
        self.now = step
        self.changed()

    def written(self, step: int, sha256: str) -> None:
        """Nothing yet: `finish` follows, in the thread that all else happens in."""

    def finish(self, step: int, sha256: str | None = None) -> None:
        """All results of a step are on the disk.

        With the `sha256` of its weights they were computed, and may be taken by others.
        """
        if sha256 is not None and has_changed(self._series, self.revision(step), sha256):
            self._load_following(step, f"step {step} has changed since the two were compared")
        self._waiting.finish(step, sha256)
        self.finished += 1
        self._progress.checkpoint_done()
        self._end(step)

    def give_twins(self, give: Callable[[int, int], None]) -> None:
        """Let `give(step, first)` give the results of `first` to each step that can take them now.

        Where it says DamagedTwinError the step is loaded instead; SweepError where it fails
        otherwise, unless failures are skipped.
        """
        while self._waiting.ready:
            step, first = self._waiting.ready.popleft()
            try:
                give(step, first)
            except RunMismatchError:
                raise
            except DamagedTwinError as error:
                self._compute_instead(step, first, error.reason)
            except Exception as error:
                self.fail(step, error)
            else:
                self.finish(step)

    def _compute_instead(self, step: int, first: int, error: FormatError) -> None:
        """Load a step after all, since the results of `first` that it was to take are damaged."""
        self._waiting.instead(step, first)
        self.queue.append(step)
        self._progress.say(
            f"step {step} is computed although step {first} has the same weights, whose results "
            f"cannot be read: {error}"
        )

    def forget(self, first: int) -> None:
        """The results of a step are damaged: nobody is to take them."""
        self._waiting.forget(first)

    def fail(self, step: int, error: Exception) -> None:
        """Keep why a step failed. SweepError, unless failures are skipped.

        Then the next step with the same weights is loaded instead: its files may be there. After an
        error that ends the use of a GPU nothing can be skipped to.
        """
        failure = self._record(step, error)
        self._end(step)
        broken = ends_context(error)
        if broken or self._on_error == "raise":
            way_on = "; on_error='skip' (--on-error skip) goes on without such steps"
            if broken:
                way_on = ". This process cannot use the GPU any more: go on in a new one"
            raise SweepError(
                f"step {step} failed: {reason_words(error, failure)}. What was finished before is "
                f"kept in {self._folder.path}{way_on}"
            ) from error
        self._progress.say(
            f"step {step} failed and is left out: {failure.error}: {failure.message}"
        )
        self._load_following(step, "it has the same weights")

    def _load_following(self, step: int, reason: str) -> None:
        """Load the next that was to take the results of a step, if there is one."""
        following = self._waiting.following(step)
        if following is not None:
            self._progress.say(f"step {following} is loaded: {reason}")
            self.queue.append(following)

    def _end(self, step: int) -> None:
        """A step is no longer computed."""
        if self.now == step:
            self.now = None
        self.changed()

    def _sort(self) -> None:
        """Which steps are done, missing, to be loaded, or to take the results of others."""
        left, missing = [], {}
        for step in self.steps:
            if self._is_done_or_failed(step):
                continue
            error = self._survey.revisions[step].error
            if error is None:
                left.append(step)
            else:
                missing[step] = error
        self._tell_missing(missing)
        if self._job.sharing:
            self._share_out(left)
        else:
            self.queue += sorted(left)
        self._tell_work()

    def _share_out(self, left: Sequence[int]) -> None:
        """Of steps with the same weights the first is to be loaded, unless one is done."""
        found = with_digests(self._series, self._survey, left, self._progress.say, self._digests)
        self._survey = found
        whole = {step: group for group in found.same_weights(self.steps) for step in group}
        for group in found.same_weights(left):
            sha256 = found.revisions[group[0]].weights_sha256
            sha256 = sha256 or self._waiting.sha256_of(whole[group[0]])
            done = None if sha256 is None else self.finished_with(sha256)
            if done is not None:
                self._waiting.let_take(group, done)
            else:
                self.queue.append(group[0])
                self._waiting.put(group[1:], group[0])

    def _is_done_or_failed(self, step: int) -> bool:
        """Whether nothing is left to do for a step: it is done, or cannot even be looked at."""
        try:
            return self._is_done(step)
        except RunMismatchError:
            raise
        except Exception as error:
            self.fail(step, error)
            return True

    def _is_done(self, step: int) -> bool:
        """Whether all results of a step are there, of the weights that the series still has."""
        origins = self._job.origins(step)
        if origins is None:
            return False
        sha256 = origins[0]["weights_sha256"]
        for origin in origins[1:]:
            check_unchanged(self._folder, step, origin["weights_sha256"], sha256)
        revision = self._survey.revisions[step]
        if revision.error is not None:
            self._progress.say(f"step {step} is kept, but it cannot be had now: {revision.error}")
        elif origins[-1]["identity"] != (identity := self._series.identity(step)):
            self._check_weights(revision, identity, sha256)
        self._folder.forget_failure(step)  # of a process that was killed before it could
        self._progress.skip(self._job.tokens(step), step)
        if revision.error is None:
            self._digests[step] = sha256
        copied = any(origin["duplicate_of"] is not None for origin in origins)
        self.finish(step, None if copied else sha256)  # else two might be copies of each other
        return True

    def _check_weights(self, revision: Revision, identity: str, then: str) -> None:
        """RunMismatchError if files that look other than they did hold other weights."""
        step = revision.step
        if is_unchanged(self._folder, step, identity, then):
            return
        if revision.weights_sha256 is not None:  # as the Hub lists them
            check_unchanged(self._folder, step, then, revision.weights_sha256)
            return
        self._progress.say(f"the files of step {step} have other times: its weights are compared")
        now = weights_sha256(self._series, step)
        check_unchanged(self._folder, step, then, now)
        if self._series.identity(step) == identity:
            keep_unchanged(self._folder, step, identity, now)

    def _record(self, step: int, error: Exception) -> Failure:
        failure = Failure.of(step, error)
        self._folder.record_failure(failure)
        self._progress.leave_out(step, self._job.tokens(step))
        return failure

    def _tell_missing(self, missing: Mapping[int, Exception]) -> None:
        """Record all that cannot be had, and go on without it or not at all."""
        if not missing:
            return
        self._folder.check_writable()
        failures = [self._record(step, error) for step, error in missing.items()]
        summary = missing_words(failures, len(self.steps))
        if self._on_error == "skip":
            self._progress.say(f"{summary}. They are left out")
            return
        raise SweepError(
            f"{summary}. Nothing was downloaded or computed; on_error='skip' (--on-error skip) "
            "goes on without them"
        ) from next(iter(missing.values()))

    def _tell_work(self) -> None:
        if not self.left:
            return
        twins, amount = len(self.left) - len(self.queue), self._job.amount(self.queue)
        words = work_words(self._survey, self.queue, twins, amount, self._budget_bytes)
        self._progress.say(words)


def _nothing() -> None:
    """What is called when nobody wants to know."""
