"""Tables of studies as files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pythia_fast.analysis import Study
from pythia_fast.errors import ArgumentError, WriteError

TABLE = pa.table(
    {"name": ['a "b", c', "ünïcode", None], "x": [1.5, np.nan, np.inf], "n": [1, 2, None]}
)


@pytest.fixture
def study() -> Study:
    def draw(table: pa.Table):
        from pythia_fast.plots import new_figure

        return new_figure()

    return Study("a study", TABLE, {"rows": 3}, draw)


def test_each_kind_reads_back(study: Study, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="there is no folder"):
        study.save_table(tmp_path / "new" / "t.csv")
    (tmp_path / "new").mkdir()
    kinds = {kind: study.save_table(tmp_path / "new" / f"t{kind}") for kind in (".csv", ".parquet")}
    assert repr(pq.read_table(kinds[".parquet"]).to_pylist()) == repr(TABLE.to_pylist())
    back = pa.csv.read_csv(kinds[".csv"]).to_pylist()
    assert [row["x"] for row in back] == [1.5, None, None]
    assert [row["name"] for row in back] == ['a "b", c', "ünïcode", ""]
    rows = json.loads(study.save_table(tmp_path / "t.JSON").read_text())
    assert rows[0] == {"name": 'a "b", c', "x": 1.5, "n": 1}
    assert rows[2] == {"name": None, "x": None, "n": None}


def test_what_cannot_be_written_is_told(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.csv or \.parquet or \.json"):
        study.save_table(tmp_path / "t.xlsx")
    with pytest.raises(ArgumentError, match="ends in none of"):
        study.save_figure(tmp_path / "t.jpg")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(WriteError, match="folder"):
        study.save_table(tmp_path / "folder.csv")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        study.save_table(tmp_path / "file" / "t.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_a_study_lies_open_to_other_programs(study: Study) -> None:
    assert repr(pa.table(study).to_pylist()) == repr(TABLE.to_pylist())
    assert len(study.to_pandas()) == study.to_polars().height == 3
    assert repr(study) == "<Study a study: 3 rows; rows 3>"
    assert "a &quot;b&quot;, c" in study._repr_html_()
