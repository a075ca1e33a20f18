"""The columns of the table of runs: their text, and their widths. Pure functions."""

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len, chop_cells

from qlora_tui.runs.narration import number
from qlora_tui.runs.shelf import Glimpse
from qlora_tui.terminal import printable

COLUMNS = ("name", "status", "step", "loss", "eval", "model", "data", "changed", "tags")

_PADDING = 2
"""Padding of each column, in cells."""

_SORT_ARROW = 2
"""Width of the sort arrow behind a heading, in cells."""

_LEAST = {"name": 18, "model": 8, "data": 8, "tags": 8}
"""Columns of variable length, with the minimum width before the next column is left out."""

_LEFT_OUT_FIRST = ("data", "model", "changed")


def moment(time_s: float | None) -> str:
    """Format a time as local date and time."""
    try:
        return time.strftime("%m-%d %H:%M", time.localtime(time_s)) if time_s else ""
    except (OverflowError, ValueError, OSError):
        return "unknown"


def cells(glimpse: Glimpse, *, marked: bool, mark: str) -> dict[str, str]:
    """The text of each column, whole. `mark` is the sign of the status."""
    total = f"/{glimpse.total_steps}" if glimpse.total_steps else ""
    texts = {
        "name": f"{'◆' if marked else ' '} {glimpse.name}",
        "status": f"{mark} {glimpse.shown_status}{', damaged' if glimpse.damage else ''}",
        "step": f"{glimpse.step}{total}",
        "loss": number(glimpse.loss) if glimpse.loss is not None else "",
        "eval": number(glimpse.eval_loss) if glimpse.eval_loss is not None else "",
        "model": glimpse.model,
        "data": glimpse.data,
        "changed": moment(glimpse.last_event_s or glimpse.created_s),
        "tags": " ".join(glimpse.tags),
    }
    return {column: printable(text).replace("\n", " ") for column, text in texts.items()}


def widths(rows: Sequence[Mapping[str, str]], width: int) -> dict[str, int]:
    """The columns to show in `width` cells, each with its own width.

    Long names, models, data and tags are shortened, the widest first; what then still has no room is left out.
    """
    natural = {column: max((cell_len(row[column]) for row in rows), default=0) for column in COLUMNS}
    natural = {column: max(cells, len(column) + _SORT_ARROW) for column, cells in natural.items()}
    kept = list(COLUMNS)
    for column in _LEFT_OUT_FIRST:
        if _least(natural, kept) > width:
            kept.remove(column)
    found = {column: natural[column] for column in kept}
    surplus = _total(found.values()) - width
    while surplus > 0:
        widest = max(_LEAST.keys() & found.keys(), key=lambda column: found[column] - _LEAST[column])
        if found[widest] <= _LEAST[widest]:
            break
        found[widest] -= 1
        surplus -= 1
    return found


def _least(natural: Mapping[str, int], kept: Iterable[str]) -> int:
    return _total([min(natural[column], _LEAST.get(column, natural[column])) for column in kept])


def _total(columns: Iterable[int]) -> int:
    return sum(width + _PADDING for width in columns)


def shortened(column: str, text: str, width: int) -> str:
    """`text` in at most `width` cells. Names lose their middle, models and data their beginning, others their end."""
    if cell_len(text) <= width:
        return text
    if column == "name":
        tail = width // 3
        return f"{_first(text, width - tail - 1)}…{_last(text, tail)}"
    return f"…{_last(text, width - 1)}" if column in ("model", "data") else f"{_first(text, width - 1)}…"


def _first(text: str, width: int) -> str:
    return chop_cells(text, width)[0] if width > 0 and text else ""


def _last(text: str, width: int) -> str:
    return _first(text[::-1], width)[::-1]
