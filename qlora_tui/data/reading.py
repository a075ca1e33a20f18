"""One source being read: its format found from the first rows, then raw rows turned into normal ones."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qlora_tui.data import kept_columns
from qlora_tui.data.bad_rows import BadRow, BadRows, LeftOutError, RowError, bad_row_error
from qlora_tui.data.batches import characters_of
from qlora_tui.data.detect import SAMPLE_ROWS, Detection, detect, late_columns
from qlora_tui.data.foreign_shapes import shape_of
from qlora_tui.data.json_reader import RawRow
from qlora_tui.data.mapping import NormalRow, mapping
from qlora_tui.data.readers import file_notes, raw_rows
from qlora_tui.data.sources import Source
from qlora_tui.errors import DataError

MAX_ROW_CHARACTERS = 32 << 20
"""A row with more text is bad. Text in which a tokenizer shows no border is tokenized at once, which takes about two
hundred bytes for each of its own."""

_SHOWN_KEYS = 8
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
    warnings: list[str]
    """What the format leaves out of the rows."""

    @classmethod
    def of(cls, source: Source, skip_bad_rows: bool) -> "Reading":
        """Read the first rows and find their format. Unreadable rows among them are left to the pass itself.

        Raises DataError when no row is readable, or the format is unknown or ambiguous.
        """
        spec = source.spec
        first, shapes = _first_rows(source)
        rows = [row[1] for row in first if not isinstance(row, BadRow)]
        if not rows:
            unreadable = next((row for row in first if isinstance(row, BadRow)), None)
            if unreadable is not None:
                raise bad_row_error(unreadable)
            raise DataError(f"{source.label} holds no rows", hint="Is it the right file or split?")
        columns = list(dict.fromkeys(str(name) for row in rows for name in row))
        detection = detect(rows, spec.format, spec.columns, source.label, spec.ignore_columns)
        notes = [f"rows are read as {shape}" for shape in shapes]
        if detection.unused:
            notes.append(f"columns that are not trained: {', '.join(detection.unused)}")
        if detection.unused_keys:
            notes.append(f"keys of turns that are not trained: {_named(detection.unused_keys)}")
        warnings = [
            f"column {name!r} contains text that is not trained; to accept this, set "
            f"data.ignore_columns = {json.dumps([name])}"
            for name in detection.unused_text
        ]
        if source.commit is None:
            notes += file_notes(source.files[0])
        return cls(source, BadRows(skip_bad_rows), detection, columns, notes, warnings)

    def rows(self, on_bytes: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
        """Normal rows with their origin; bad rows are counted or, unless they may be skipped, raise DataError.

        `on_bytes` gets the file bytes read so far. Raises DataError for a column that appears after the sampled rows
        and whose text would be lost.
        """
        to_normal = mapping(self.detection.format, self.detection.columns)
        known = {*self.columns, *self.source.spec.ignore_columns}
        for raw in _unfolded(self.source, on_bytes):
            if isinstance(raw, BadRow):
                self.bad.add(raw)
                continue
            where, row = raw
            if not known.issuperset(row):
                self._check_late_columns(where, row, known)
            try:
                normal: dict[str, Any] = {**_bounded(to_normal(row)), "origin": where, "kept": kept_columns.stored(row)}
            except RowError as error:
                self.bad.add(BadRow(where, str(error)))
            except LeftOutError as error:
                self.bad.left_out[str(error)] += 1
            else:
                yield normal

    def _check_late_columns(self, where: str, row: dict[str, Any], known: set[str]) -> None:
        """Raise for a column that the sample did not have and that would be read, or should be, if it had."""
        new = {name: value for name, value in row.items() if name not in known}
        found = late_columns(new, row, self.detection, self.source.spec.format, self.source.spec.columns)
        present = [name for name, value in new.items() if value not in (None, "", [], {})]
        known.update(present)
        if not found:
            self.bad.late_columns |= {str(name): where for name in present}
            return
        name, kind = found[0]
        use = f"data.columns.{kind} = {json.dumps(name)}, or " if kind is not None else ""
        raise DataError(
            f"{where}: column {name!r} first appears here, after the rows used to detect the format; "
            "its content would not be trained",
            hint=f"Set {use}data.ignore_columns = {json.dumps([name for name, _ in found])}.",
        )


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN_KEYS]) + (" and others" if len(keys) > _SHOWN_KEYS else "")


def _bounded(row: NormalRow) -> NormalRow:
    size = characters_of(row["messages"], row["text"])
    if size > MAX_ROW_CHARACTERS:
        raise RowError(
            f"holds {size:,} characters of text, a row may hold {MAX_ROW_CHARACTERS:,}; divide it into several"
        )
    return row


def _first_rows(source: Source) -> tuple[list[RawRow | BadRow], list[str]]:
    """Return the rows used to detect the format, and the foreign layouts among them.

    If none of the first rows has an explicitly named column, the first row with it is added.
    """
    first: list[RawRow | BadRow] = []
    shapes: dict[str, None] = {}
    missing = set(source.spec.columns.model_dump(exclude_none=True).values())
    characters = 0
    for count, row in enumerate(_unfolded(source, None, shapes)):
        sampled = count < SAMPLE_ROWS and characters <= _SAMPLE_CHARACTERS
        if not sampled and not missing:
            break
        names = set() if isinstance(row, BadRow) else missing.intersection(row[1])
        if sampled or names:
            first.append(row)
            characters += len(str(row))
        missing -= names
    return first, list(shapes)


def _unfolded(
    source: Source, on_bytes: Callable[[int], None] | None, shapes: dict[str, None] | None = None
) -> Iterator[RawRow | BadRow]:
    for raw in raw_rows(source.files, on_bytes):
        if isinstance(raw, BadRow):
            yield raw
            continue
        where, row = raw
        shape = shape_of(row)
        if shape is None:
            yield raw
            continue
        if shapes is not None:
            shapes[shape.name] = None
        try:
            for inner in shape.reshape(row):
                yield where, inner
        except RowError as error:
            yield BadRow(where, f"looks like {shape.name}, but {error}")
