"""Rows that cannot be read or used: what is kept about them, and when they stop the load."""

from collections import Counter
from dataclasses import dataclass, field

from qlora_tui.errors import DataError

KEPT = 100
"""So many bad rows are remembered one by one; the rest are only counted."""


_SHOWN_COLUMNS = 8


class RowError(ValueError):
    """Why one row cannot be used; becomes a BadRow where the row's place is known."""


class LeftOutError(Exception):
    """Reason why a readable row is not trained. Such rows are counted and are not an error."""


@dataclass(frozen=True, slots=True)
class BadRow:
    where: str
    """File and line or row, such as "train.jsonl:17"."""

    reason: str


@dataclass
class BadRows:
    """Collects bad rows, or raises at the first one unless they may be skipped."""

    skip: bool
    rows: list[BadRow] = field(default_factory=list)
    count: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that are intentionally not trained, by reason."""

    late_columns: dict[str, str] = field(default_factory=dict)
    """Where columns first appear that are not trained and that the rows used to detect the format lack."""

    def late_notes(self) -> list[str]:
        """Name those columns."""
        named = ", ".join(
            f"{name} (first in {where})" for name, where in list(self.late_columns.items())[:_SHOWN_COLUMNS]
        )
        more = len(self.late_columns) - _SHOWN_COLUMNS
        return (
            [f"columns of later rows that are not trained: {named}" + (f" and {more:,} more" if more > 0 else "")]
            if named
            else []
        )

    def left_out_reasons(self) -> list[str]:
        """Number of rows that are intentionally not trained, and why."""
        return [
            f"{count:,} {'row is' if count == 1 else 'rows are'} not trained: {reason}"
            for reason, count in self.left_out.items()
        ]

    def add(self, row: BadRow) -> None:
        """Count `row`. Raises DataError when bad rows may not be skipped."""
        if not self.skip:
            raise bad_row_error(row)
        self.count += 1
        if len(self.rows) < KEPT:
            self.rows.append(row)


def bad_row_error(row: BadRow) -> DataError:
    """The error that a bad row is when rows may not be skipped."""
    return DataError(
        f"{row.where}: {row.reason}",
        hint="Correct the row, or let bad rows be skipped and counted: --set data.skip_bad_rows=true"
        " (`data inspect` and `data convert` know --skip-bad-rows too).",
    )
