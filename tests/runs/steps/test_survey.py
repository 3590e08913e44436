"""What is told of steps before anything is downloaded."""

from collections.abc import Mapping, Sequence

import pytest

import pythia_fast
from pythia_fast.errors import MissingCheckpointError
from pythia_fast.hub.files import HubFile
from pythia_fast.runs.steps.survey import Survey, survey
from pythia_fast.series import Revision


class Known:
    """A series of which only the survey is asked."""

    def __init__(self, model: str, files: Mapping[int, Sequence[str]]) -> None:
        self.spec = pythia_fast.spec(model)
        self._files = files

    def survey(self, steps: Sequence[int]) -> dict[int, Revision]:
        return {
            step: Revision(
                step,
                files=tuple(HubFile(name, 10, None) for name in self._files[step]),
                error=None if self._files[step] else MissingCheckpointError("nothing there"),
            )
            for step in steps
        }


def kinds(model: str, files: Mapping[int, Sequence[str]]) -> list[str]:
    found = survey(Known(model, files), list(files))  # type: ignore[arg-type]
    return [anomaly.kind for anomaly in found.anomalies]


BIN, SAFE = ["pytorch_model.bin"], ["model.safetensors"]
SHARDS = [f"pytorch_model-0000{n}-of-00003.bin" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("model", "files", "expected"),
    [
        ("2.8b", {512: SAFE, 54_000: SAFE}, ["wrong weights", "wrong weights"]),
        ("2.8b", {512: BIN, 54_000: BIN}, []),
        ("2.8b", {512: SAFE, 54_000: BIN}, ["wrong weights"]),
        ("12b", {50_000: SHARDS}, ["wrong weights"]),
        ("12b", {51_000: SHARDS, 4_000: SHARDS}, []),
        ("12b-deduped", {32_000: SHARDS}, ["replaced"]),
        ("410m-seed9", {40_000: []}, ["missing"]),
        ("410m-seed9", {40_000: BIN}, []),
        ("70m", {0: BIN, 1: BIN}, ["identical"]),
        ("70m", {0: BIN, 2: BIN}, []),
        ("70m", {0: BIN, 1: []}, []),
        ("160m-weight-seed1", {0: BIN, 8: BIN}, ["unrelated start"]),
    ],
)
def test_only_what_is_known_of_the_files_that_will_be_read(
    model: str, files: Mapping[int, Sequence[str]], expected: list[str]
) -> None:
    assert kinds(model, files) == expected


def test_what_is_known_is_said_with_the_steps_and_the_address() -> None:
    steps = pythia_fast.checkpoints("2.8b")[:30]
    found = survey(Known("2.8b", dict.fromkeys(steps, SAFE)), steps)  # type: ignore[arg-type]
    (first, second) = found.known()
    assert first.startswith("known of step 0, 1: identical: ")
    assert second.startswith("known of step 0, 1, 2, 4, 8, 16, 32, 64 and 22 more: wrong weights")
    assert second.endswith("(https://github.com/EleutherAI/pythia/issues/205)")
    assert len(found.remarks(1)) == 2
    assert len(found.remarks(2)) == 1


def test_only_the_steps_of_which_it_is_true() -> None:
    files = {512: SAFE, 1_000: BIN, 2_000: SAFE}
    found = survey(Known("2.8b", files), list(files))  # type: ignore[arg-type]
    (line,) = found.known()
    assert line.startswith("known of step 512, 2000: wrong weights")
    assert [len(found.remarks(step)) for step in files] == [1, 0, 1]


def test_what_is_there_is_not_missing() -> None:
    files = {4_000: SHARDS, 32_000: []}
    found = survey(Known("12b", files), list(files))  # type: ignore[arg-type]
    (line,) = found.known()
    assert line.startswith("known of step 32000: missing")
    assert [len(found.remarks(step)) for step in files] == [0, 1]


def revision(step: int, sha256: str | None, size: int = 10, here: int = 0) -> Revision:
    return Revision(step, "c", (HubFile("f", size, sha256),), sha256, here)


def test_the_same_weights_are_one_download() -> None:
    found = Survey({n: revision(n, sha) for n, sha in enumerate(["a", "b", "a", None, None])}, ())
    assert found.same_weights(range(5)) == [(0, 2), (1,), (3,), (4,)]
    assert found.same_weights([2, 1]) == [(2,), (1,)]
    assert found.download_bytes(range(5)) == 40
    assert found.download_bytes([0, 2]) == 10


def test_what_is_here_is_not_downloaded() -> None:
    found = Survey({0: revision(0, "a", 10, 4), 1: revision(1, "b", 10, 10)}, ())
    assert found.download_bytes([0, 1]) == 6
