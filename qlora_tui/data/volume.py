"""How many rows a source has, before anything is tokenized: counted where it is small, else from its first rows."""

import re
from dataclasses import dataclass

from qlora_tui.config.data import DataSpec
from qlora_tui.data.batches import characters_of
from qlora_tui.data.load import read_rows
from qlora_tui.data.registry import KNOWN
from qlora_tui.data.sources import is_on_hub
from qlora_tui.errors import QloraError

_MOST_ROWS = 5_000
_MOST_CHARACTERS = 4 << 20
"""A source that is larger is judged by its first rows, in about a tenth of a second."""

_TRAIN_ROWS = re.compile(r"([\d,]+) train")


@dataclass(frozen=True, slots=True)
class Volume:
    """Rows of the main source."""

    rows: int
    exact: bool
    characters_per_row: float | None
    """Text of a row on average; None where no row was read."""


def volume(data: DataSpec) -> Volume | None:
    """Return how many rows `data.source` has; None when counting them needs a download or takes long."""
    if is_on_hub(data.source):
        known = KNOWN.get(data.source)
        found = _TRAIN_ROWS.search(known.rows) if known is not None and data.split is None else None
        return Volume(int(found[1].replace(",", "")), True, None) if found is not None else None
    if data.split is not None and "[" in data.split:
        return None
    try:
        return _of_files(data)
    except QloraError:
        return None


def _of_files(data: DataSpec) -> Volume | None:
    read_bytes, total_bytes = 0, 0

    def on_progress(_: str, done: int, total: int | None) -> None:
        nonlocal read_bytes, total_bytes
        read_bytes, total_bytes = done, total or 0

    rows, characters = 0, 0
    for row in read_rows(data, skip_bad_rows=True, on_progress=on_progress).rows:
        rows += 1
        characters += characters_of(row["messages"], row["text"])
        if rows >= _MOST_ROWS or characters >= _MOST_CHARACTERS:
            if not read_bytes or not total_bytes:
                return None
            return Volume(max(rows, round(rows * total_bytes / read_bytes)), False, characters / rows)
    return Volume(rows, True, characters / rows) if rows else None
