"""Which rows `pythia-fast view` is asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pythia_fast.cli.spans import Span
from pythia_fast.errors import ArgumentError, RowIndexError

if TYPE_CHECKING:
    from pythia_fast.tokens import TokenDataset


@dataclass(frozen=True)
class Selection:
    """The rows that are meant; `steps` are the training steps that saw them, if asked for so."""

    rows: range
    batch: int
    steps: range | None

    def words(self) -> str:
        """The selection, for a person."""
        rows = f"rows {self.rows.start:,} to {self.rows.stop - 1:,}"
        if self.steps is None:
            return rows
        first, last = self.steps[0], self.steps[-1]
        if first == last:
            return f"{rows}: training step {first:,}"
        return (
            f"{rows}: training steps {first:,} to {last:,}, seen between checkpoints "
            f"step{first - 1} and step{last}"
        )

    def as_json(self) -> dict[str, Any]:
        """The selection, for a program: [first, end) of rows and of training steps."""
        found: dict[str, Any] = {"rows": [self.rows.start, self.rows.stop]}
        if self.steps is not None:
            found |= {"steps": [self.steps.start, self.steps.stop], "batch": self.batch}
        return found

    def place(self, row: int) -> dict[str, int]:
        """A row's number and, if steps were asked for, its step."""
        from pythia_fast.tokens.steps import position_of

        if self.steps is None:
            return {"row": row}
        return {"row": row, "step": position_of(row, self.batch).step}


def select(
    dataset: "TokenDataset",
    rows: Span | None,
    steps: Span | None,
    batch: int,
    *,
    inclusive: bool,
    default: int | None,
) -> Selection:
    """What is meant of the data; without either option the first `default` rows, or all.

    RowIndexError or ArgumentError if the data does not have it.
    """
    if steps is not None:
        return _by_step(len(dataset), steps, batch, inclusive=inclusive)
    count = len(dataset)
    if rows is None:
        chosen = range(count if default is None else min(default, count))
        asked = "the data"
    elif isinstance(rows, int):
        chosen, asked = range(rows, min(rows + 1, count)), f"row {rows}"
    else:
        first, end = rows[0] or 0, count if rows[1] is None else rows[1] + inclusive
        if first < count < end:
            raise RowIndexError(
                f"--rows means rows {first:,} to {end - 1:,}, but the data has {count:,} "
                f"rows: give {first}: to stop at the last"
            )
        chosen, asked = range(first, min(end, count)), f"rows {first}:{end}"
    if not chosen:
        raise ArgumentError(f"the data has {count:,} rows, and none of them is in {asked}")
    return Selection(chosen, batch, None)


def _by_step(count: int, steps: Span, batch: int, *, inclusive: bool) -> Selection:
    """Training step s is what was seen between the checkpoints s - 1 and s."""
    from pythia_fast.tokens.steps import require_rows, rows_between, rows_of_step, whole_steps

    if isinstance(steps, int):
        if steps == 0:
            raise ArgumentError(
                "no step leads to checkpoint 0, which has seen nothing: --steps 1 is the first "
                "training step, and --steps 0:1 what was seen from checkpoint 0 to 1, the same"
            )
        rows, training = rows_of_step(steps, batch), range(steps, steps + 1)
    else:
        first = steps[0] or 0
        last = whole_steps(count, batch) if steps[1] is None else steps[1] + inclusive
        if steps[1] is None and first >= last:
            rows = range(batch * first, batch * (first + 1))  # for the error that is to come
        elif first >= last:
            raise ArgumentError(
                f"--steps {first}:{last} holds nothing: A:B is what was seen after checkpoint A "
                "up to checkpoint B"
            )
        else:
            rows = rows_between(first, last, batch)
        training = range(first + 1, last + 1)
    require_rows(rows, count, batch, "--steps")
    return Selection(rows, batch, training)
