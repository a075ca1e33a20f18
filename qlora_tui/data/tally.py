"""Counts kept while rows become tokens. They are stored beside the tokenized rows, so a cached start knows them too."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from qlora_tui.data.mask import IGNORED

if TYPE_CHECKING:
    from qlora_tui.data.row_encoder import EncodedRow

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


@dataclass(slots=True)
class Tally:
    rows: int = 0
    """Rows that were given."""

    kept_rows: int = 0
    """Training rows that came of them; more than `rows` when long ones were split."""

    tokens: int = 0
    trained_tokens: int = 0
    truncated_rows: int = 0
    cut_tokens: int = 0
    """Tokens of truncated rows that are gone."""

    unended_rows: int = 0
    """Truncated rows whose end token went with the cut."""

    split_rows: int = 0
    too_long_rows: int = 0
    """Rows dropped by `length_policy = "drop"`."""

    no_answer_rows: int = 0
    """Dropped: no assistant turn, or no text."""

    unmarked_rows: int = 0
    """Dropped: the template wrote no trained token for their answers."""

    cut_away_rows: int = 0
    """Dropped: the cut left no trained token."""

    refused_rows: int = 0
    """Left out with `skip_bad_rows`: the template cannot render them."""

    empty_rows: int = 0
    """Kept rows whose trained answers are all blank: of them only the end token is trained."""

    trimmed_rows: int = 0
    """Rows with white space around a trained answer that the template removes."""

    lossy_rows: int = 0
    """Kept rows with content that the template dropped."""

    first_loss: str = ""
    """What was dropped from the first of them."""

    first_lossy_row: int = 0
    """Index of that row in the given rows."""

    first_lossy_origin: str = ""
    text_rows: int = 0
    """Rows of finished text, trained whole."""

    marked_rows: int = 0
    """Rows whose text holds the strings that templates write between turns."""

    marked_text_rows: int = 0
    """Those of them that are finished text."""

    first_marker: str = ""
    """What the first of them holds."""

    first_marked_row: int = 0
    """Index of that row in the given rows."""

    first_marked_origin: str = ""
    longest_tokens: int = 0
    longest_row: int = 0
    """Counted from 0 in the rows that were given."""

    longest_origin: str = ""
    full_lengths: Counter[int] = field(default_factory=Counter)
    """How many rows have so many tokens before anything is cut. Those that the template refuses have none."""

    lengths: Counter[int] = field(default_factory=Counter)
    """How many training rows have so many tokens."""

    def add(self, row: "EncodedRow") -> None:
        """Count one row."""
        if row.dropped != "refused":
            self.full_lengths[row.full_tokens] += 1
        self.text_rows += row.is_text
        if row.full_tokens > self.longest_tokens:
            self.longest_tokens, self.longest_row, self.longest_origin = row.full_tokens, self.rows, row.origin
        if row.marker:
            if not self.marked_rows:
                self.first_marker, self.first_marked_row, self.first_marked_origin = row.marker, self.rows, row.origin
            self.marked_rows += 1
            self.marked_text_rows += row.is_text
        self.rows += 1
        self._count_fate(row)
        for ids, labels in row.pieces:
            self.kept_rows += 1
            self.tokens += len(ids)
            self.trained_tokens += len(ids) - labels.count(IGNORED)
            self.lengths[len(ids)] += 1

    def _count_fate(self, row: "EncodedRow") -> None:
        match row.dropped:
            case "too long":
                self.too_long_rows += 1
            case "no answer":
                self.no_answer_rows += 1
            case "not marked":
                self.unmarked_rows += 1
            case "cut away":
                self.cut_away_rows += 1
            case "refused":
                self.refused_rows += 1
            case _:
                self.empty_rows += row.empty
                self.trimmed_rows += row.trimmed
                if row.loss:
                    self._count_loss(row)
                self.split_rows += len(row.pieces) > 1
                self.truncated_rows += row.cut_tokens > 0
                self.cut_tokens += row.cut_tokens
                self.unended_rows += row.unended

    def _count_loss(self, row: "EncodedRow") -> None:
        if not self.lossy_rows:
            # `rows` has counted this one already.
            self.first_loss, self.first_lossy_row, self.first_lossy_origin = row.loss, self.rows - 1, row.origin
        self.lossy_rows += 1

    def locate(self, origins: Sequence[str]) -> None:
        """Name places by these origins of the counted rows: rows of like content may come from another file."""
        if self.longest_tokens:
            self.longest_origin = origins[self.longest_row]
        if self.marked_rows:
            self.first_marked_origin = origins[self.first_marked_row]
        if self.lossy_rows:
            self.first_lossy_origin = origins[self.first_lossy_row]

    @property
    def first_marked(self) -> str:
        """The first marker in a row's text and where it is; empty when there is none."""
        return f"{self.first_marker!r} in {self.first_marked_origin}" if self.marked_rows else ""

    @property
    def untrained_rows(self) -> int:
        return self.no_answer_rows + self.unmarked_rows + self.cut_away_rows

    @property
    def pieces(self) -> int:
        """Training rows that came of the rows that were split."""
        return self.kept_rows - (self._used_rows - self.split_rows)

    @property
    def says_nothing(self) -> bool:
        """Whether rows are kept and every one of them has nothing but empty answers."""
        return 0 < self.empty_rows == self._used_rows

    @property
    def _used_rows(self) -> int:
        return self.rows - self.untrained_rows - self.too_long_rows - self.refused_rows

    def to_json(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Tally":
        """Raises TypeError or ValueError for anything `to_json` did not write."""
        if values.keys() != {one.name for one in fields(cls)}:
            raise ValueError("counts of another form")
        tally = cls(**values)
        tally.full_lengths = Counter({int(length): count for length, count in tally.full_lengths.items()})
        tally.lengths = Counter({int(length): count for length, count in tally.lengths.items()})
        return tally


def percentiles(lengths: Counter[int]) -> dict[str, int]:
    """Length at each of PERCENTILES, nearest rank. Empty when there are no rows."""
    total = sum(lengths.values())
    if not total:
        return {}
    ranks = {f"p{percent}": max(1, -(-percent * total // 100)) for percent in PERCENTILES}
    found: dict[str, int] = {}
    for length, reached in _cumulated(lengths):
        for name, rank in ranks.items():
            if name not in found and reached >= rank:
                found[name] = length
    return found


def _cumulated(lengths: Counter[int]) -> Iterator[tuple[int, int]]:
    reached = 0
    for length in sorted(lengths):
        reached += lengths[length]
        yield length, reached
