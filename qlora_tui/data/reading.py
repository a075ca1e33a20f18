"""One source being read: its format found from the first rows, then raw rows turned into normal ones."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.bad_rows import BadRow, BadRows, RowError, bad_row_error
from qlora_tui.data.batches import characters_of
from qlora_tui.data.detect import SAMPLE_ROWS, Detection, detect
from qlora_tui.data.json_reader import RawRow
from qlora_tui.data.mapping import NormalRow, mapping, unfolded
from qlora_tui.data.readers import file_notes, raw_rows
from qlora_tui.data.sources import Source
from qlora_tui.errors import DataError

MAX_ROW_CHARACTERS = 32 << 20
"""A row with more text is bad. Text in which a tokenizer shows no border is tokenized at once, which takes about two
hundred bytes for each of its own."""

_SAMPLE_CHARACTERS = 4 << 20
"""Rows of megabytes show what they are after a few."""


@dataclass
class Reading:
    source: Source
    bad: BadRows
    detection: Detection
    columns: list[str]
    """Columns in the sampled rows."""

    notes: list[str]

    @classmethod
    def of(cls, source: Source, skip_bad_rows: bool) -> "Reading":
        """Read the first rows and find their format. Unreadable rows among them are left to the pass itself.

        Raises DataError when no row is readable, or the format is unknown or ambiguous.
        """
        first = _first_rows(source)
        rows = [row[1] for row in first if not isinstance(row, BadRow)]
        if not rows:
            unreadable = next((row for row in first if isinstance(row, BadRow)), None)
            if unreadable is not None:
                raise bad_row_error(unreadable)
            raise DataError(f"{source.label} holds no rows", hint="Is it the right file or split?")
        columns = list(dict.fromkeys(str(name) for row in rows for name in row))
        detection = detect(rows, source.spec.format, source.spec.columns, source.label)
        notes = file_notes(source.files[0]) if source.commit is None else []
        return cls(source, BadRows(skip_bad_rows), detection, columns, notes)

    def rows(self, on_bytes: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
        """Normal rows with their origin; bad rows are counted or, unless they may be skipped, raise DataError.

        `on_bytes` gets the file bytes read so far.
        """
        to_normal = mapping(self.detection.format, self.detection.columns)
        for raw in _unfolded(self.source, on_bytes):
            if isinstance(raw, BadRow):
                self.bad.add(raw)
                continue
            where, row = raw
            try:
                normal: dict[str, Any] = {**_bounded(to_normal(row)), "origin": where}
            except RowError as error:
                self.bad.add(BadRow(where, str(error)))
            else:
                yield normal


def _bounded(row: NormalRow) -> NormalRow:
    size = characters_of(row["messages"], row["text"])
    if size > MAX_ROW_CHARACTERS:
        raise RowError(
            f"holds {size:,} characters of text, a row may hold {MAX_ROW_CHARACTERS:,}; divide it into several"
        )
    return row


def _first_rows(source: Source) -> list[RawRow | BadRow]:
    first: list[RawRow | BadRow] = []
    characters = 0
    for row in itertools.islice(_unfolded(source, None), SAMPLE_ROWS):
        first.append(row)
        characters += len(str(row))
        if characters > _SAMPLE_CHARACTERS:
            break
    return first


def _unfolded(source: Source, on_bytes: Callable[[int], None] | None) -> Iterator[RawRow | BadRow]:
    for raw in raw_rows(source.files, on_bytes):
        if isinstance(raw, BadRow):
            yield raw
        else:
            for row in unfolded(raw[1]):
                yield raw[0], row
