"""A damaged part makes room for a new one, and what another process has mended stays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from damaged_parts import cut

from pythia_fast.errors import FormatError, WriteError
from pythia_fast.metrics import METRICS, Perplexity
from pythia_fast.runs.folder import checked
from pythia_fast.runs.folder.parts import _OF_A_PART
from pythia_fast.runs.folder.run_folder import RunFolder
from pythia_fast.runs.plan import Unit

UNIT = Unit(8, METRICS["perplexity"], 0, 1, np.arange(3))
NUMBERS = {"nll": [1.0, 2.0, 3.0], "tokens": [5, 5, 5], "nonfinite": [0, 0, 0]}
TABLE = pa.table({"sequence": [0, 1, 2], **NUMBERS})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """With the result of UNIT."""
    folder = RunFolder(tmp_path / "run", {"model": "x"})
    folder.publish(UNIT, TABLE, origin(folder))
    return folder


def origin(folder: RunFolder) -> dict:
    own = {"run": folder.hash, "step": 8, "metric": "perplexity", "shards": 1}
    return dict.fromkeys(_OF_A_PART, None) | own


def test_a_good_part_stays(folder: RunFolder) -> None:
    assert folder.intact(UNIT) == folder.intact(UNIT) == origin(folder)
    assert not (folder.path / "damaged").exists()


def test_what_is_not_there_is_not(folder: RunFolder) -> None:
    (folder.path / UNIT.path).unlink()
    assert folder.intact(UNIT) is None


def test_a_damaged_one_makes_room(folder: RunFolder) -> None:
    cut(folder.path / UNIT.path)
    assert folder.intact(UNIT) is None
    assert not folder.done(UNIT)
    folder.publish(UNIT, TABLE, origin(folder))
    assert folder.intact(UNIT) == origin(folder)
    cut(folder.path / UNIT.path)
    assert folder.intact(UNIT) is None, "its end is looked at each time"
    assert len(list((folder.path / "damaged/step=8").iterdir())) == 2


def test_want_of_memory_is_no_damage(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> pa.Table:
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr(checked.pq.ParquetFile, "read", full)
    with pytest.raises(MemoryError):
        folder.intact(UNIT)
    assert not (folder.path / "damaged").exists()


def test_a_derived_metric_may_have_other_columns(folder: RunFolder, tmp_path: Path) -> None:
    class Derived(Perplexity):
        pass

    other = pa.table({"sequence": [0, 1, 2], "bits": [1.0, 2.0, 3.0]})
    unit = Unit(8, Derived(), 0, 1, np.arange(3))
    elsewhere = RunFolder(tmp_path / "other", {"model": "y"})
    elsewhere.publish(unit, other, origin(elsewhere))
    assert elsewhere.intact(unit) == origin(elsewhere)


def test_what_another_process_has_mended_meanwhile_is_taken(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / UNIT.path
    good = path.read_bytes()
    cut(path)
    look = checked.checked_unit

    def mended(*arguments: object) -> dict:
        """After a look at the damaged part, the other's is there."""
        try:
            return look(*arguments)
        except FormatError:
            path.write_bytes(good)
            raise

    monkeypatch.setattr(checked, "checked_unit", mended)
    assert folder.intact(UNIT) == origin(folder)
    assert path.read_bytes() == good
    assert list((folder.path / "damaged/step=8").iterdir()) == []


def test_what_another_process_has_put_aside_is_computed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / UNIT.path
    monkeypatch.setattr(folder, "done", lambda unit: True)
    path.unlink()
    assert folder.intact(UNIT) is None


def test_symbolic_links_are_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    cut(folder.path / UNIT.path)
    (folder.path / "damaged").symlink_to(tmp_path)
    with pytest.raises(WriteError, match="symbolic link"):
        folder.intact(UNIT)


@pytest.mark.parametrize("rows", [[0, 2, 1], [0, 1], [0, 1, 2, 3], [0, 1, None]])
def test_rows_of_other_sequences_make_room(folder: RunFolder, rows: list[int | None]) -> None:
    (folder.path / UNIT.path).unlink()
    numbers = {name: [values[0]] * len(rows) for name, values in NUMBERS.items()}
    folder.publish(UNIT, pa.table({"sequence": rows, **numbers}), origin(folder))
    assert folder.intact(UNIT) is None
