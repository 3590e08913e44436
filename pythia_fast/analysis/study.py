"""What a case study gives: a table, a figure of it, and what it says in a few numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pythia_fast.analysis.saving import save_table
from pythia_fast.analysis.telling import shown
from pythia_fast.cache import expanded
from pythia_fast.extras import require
from pythia_fast.markup import html_arrow
from pythia_fast.plots import save_figure
from pythia_fast.publish import make_folder
from pythia_fast.tabular import Tabular

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Study(Tabular):
    """A finding.

    Attributes:
        name: the case study, such as "training order".
        table: one row for each thing that was found out, each with what it belongs to.
        summary: what it comes to, by name: numbers, and words where a number would mislead.
        draw: makes the figure; called anew each time `figure` is.
        details: further tables by name, which say how `table` came about.
    """

    name: str
    table: pa.Table
    summary: Mapping[str, float | int | str]
    draw: "Callable[[pa.Table], Figure]"
    details: Mapping[str, pa.Table] = field(default_factory=dict)

    def figure(self) -> "Figure":
        """A new matplotlib figure of the table (extra: `analysis`)."""
        require("matplotlib")
        return self.draw(self.table)

    def save_table(self, path: str | Path) -> Path:
        """Write the table as .csv, .parquet or .json, by the ending; see `saving.save_table`."""
        return save_table(self.table, path)

    def save_details(self, folder: str | Path) -> tuple[Path, ...]:
        """Write each of `details` into the folder, which is made, as <name>.parquet.

        WriteError where the system refuses.
        """
        target = expanded(folder)
        make_folder(target)
        return tuple(
            save_table(table, target / f"{name}.parquet") for name, table in self.details.items()
        )

    def save_figure(self, path: str | Path) -> Path:
        """Draw the figure into a .pdf, .png or .svg, by the ending (extra: `analysis`)."""
        return save_figure(self.figure(), path)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {shown(value)}" for name, value in self.summary.items())
        return f"<Study {self.name}: {len(self.table)} rows; {found}>"

    def _repr_html_(self) -> str:
        return html_arrow(self.table, title=repr(self))
