"""What is said of steps: how much there is to do, what cannot be had, and why one has failed."""

from collections.abc import Collection, Sequence

from pythia_fast.errors import PythiaFastError
from pythia_fast.quantities import counted, sized
from pythia_fast.runs.folder.parts import Failure
from pythia_fast.runs.steps.share import Share
from pythia_fast.runs.steps.survey import Survey

_TOLD_AT_MOST = 4  # reasons in one error


def missing_words(failures: Sequence[Failure], steps: int) -> str:
    """Which of so many `steps` cannot be had, and why."""
    words = [f"step {each.step}: {each.message}" for each in failures[:_TOLD_AT_MOST]]
    more = failures[_TOLD_AT_MOST:]
    if more:
        words.append(f"and likewise {', '.join(str(each.step) for each in more)}")
    return f"{len(failures)} of {counted(steps, 'step')} cannot be had: {'; '.join(words)}"


def share_words(share: Share, own: int, steps: int) -> str:
    """How many of so many `steps` are a share's `own`."""
    if not own:
        shares = counted(share.count, "share")
        return f"share {share}: no step is its own ({counted(steps, 'step')}, {shares})"
    return f"share {share}: {own} of {counted(steps, 'step')}"


def work_words(
    survey: Survey, queue: Collection[int], twins: int, amount: str, budget_bytes: int | None
) -> str:
    """What is about to be downloaded, kept and computed; of time nothing is known yet.

    `queue` is to be loaded; so many `twins` take the results of these, and `amount` says how much
    is computed. No more than `budget_bytes` of the disk are used.
    """
    download_bytes, disk_bytes = survey.download_bytes(queue), survey.coming_bytes(queue)
    if budget_bytes is not None:
        disk_bytes = min(disk_bytes, budget_bytes)
    about = "about " if survey.makes_masks(queue) else ""
    words = [f"{counted(len(queue), 'step')} to load"]
    if download_bytes:
        words.append(f"{about}{sized(download_bytes)} to download")
        words.append(f"{sized(disk_bytes)} of disk needed")
    words.append(amount)
    have = "has" if twins == 1 else "have"
    same = f"; {twins} more {have} the same weights as others" if twins else ""
    return f"{', '.join(words)}{same}"


def reason_words(error: Exception, failure: Failure) -> str:
    """Why a step failed: our own words alone; those of others say little without the type."""
    if isinstance(error, PythiaFastError):
        return failure.message
    return f"{failure.error}: {failure.message}"
