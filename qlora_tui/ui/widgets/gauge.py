"""A bar of parts in one line of text, with a mark: memory by owner, progress, load."""

from typing import NamedTuple

from textual.content import Content

_REST = "─"
_MARK = "│"


class Part(NamedTuple):
    """A share of the whole, and how it is drawn. Different characters tell parts apart without colour."""

    share: float
    style: str
    character: str = "█"


def gauge(width: int, parts: list[Part], *, mark: float | None = None, mark_style: str = "$warning") -> Content:
    """A bar of `width` columns. `mark` is a share of the whole, drawn over whatever is there, at most at the end."""
    width = max(width, 1)
    cells: list[tuple[str, str]] = []
    end = 0.0
    for part in parts:
        end += max(part.share, 0.0)
        cells += [(part.character, part.style)] * (min(round(end * width), width) - len(cells))
    cells += [(_REST, "$foreground 30%")] * (width - len(cells))
    if mark is not None:
        cells[min(int(max(mark, 0.0) * width), width - 1)] = (_MARK, f"bold {mark_style}")
    return Content.assemble(*_joined(cells))


def _joined(cells: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one style as one piece."""
    pieces: list[tuple[str, str]] = []
    for character, style in cells:
        if pieces and pieces[-1][1] == style:
            pieces[-1] = (pieces[-1][0] + character, style)
        else:
            pieces.append((character, style))
    return pieces
