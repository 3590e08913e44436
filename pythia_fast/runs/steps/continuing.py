"""Going on where a run began: with the same series, and each step from the same commit."""

from collections.abc import Callable, Mapping

from pythia_fast.errors import RunMismatchError
from pythia_fast.runs.folder.pins import pin, pin_path
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.job import Job
from pythia_fast.runs.steps.survey import Survey, survey, weights_sha256
from pythia_fast.series import CheckpointSeries


def survey_of_run(
    series: CheckpointSeries,
    job: Job,
    folder: RunFolder,
    say: Callable[[str], None],
) -> Survey:
    """What is known of a job's steps, taken from the commits where the run in the folder began.

    RunMismatchError if the run's results are of another series or of other weights; HubError.
    """
    _check_source(series, job, folder)
    found = survey(series, job.steps)
    moved = pin(folder, found.revisions, job.place)
    return _gone_back(series, found, moved, folder, say) if moved else found


def _check_source(series: CheckpointSeries, job: Job, folder: RunFolder) -> None:
    """RunMismatchError if the run's results are of another folder of the same name."""
    if series.spec.repo is not None:
        return
    origin = job.first_origin()
    if origin is None or origin.get("source") == series.source:
        return
    step = origin["step"]
    moved = step in series.steps
    if not moved or weights_sha256(series, step) != origin["weights_sha256"]:
        raise RunMismatchError(
            f"{folder.path} holds results of {origin.get('source')}, which is another series than "
            f"{series.source}. Give another `out` (--out)"
        )


def _gone_back(
    series: CheckpointSeries,
    found: Survey,
    moved: Mapping[int, str],
    folder: RunFolder,
    say: Callable[[str], None],
) -> Survey:
    """The same with the steps that have moved taken from these commits, where the run began."""
    series.pin(moved)
    found = found.renewed(series, tuple(moved))
    for step, commit in moved.items():
        say(
            f"step {step}: its branch has moved, but the weights are the same: going on with "
            f"commit {commit[:12]}, where this run began"
        )
        error = found.revisions[step].error
        if error is not None:
            error.add_note(
                "its branch has the same weights at another commit now: to go on with that, "
                f"remove {pin_path(folder, step)}"
            )
    return found
