"""The sign and the colour of what a run is doing, the same wherever it is shown."""

from textual.content import Content

MARKS = {
    "reading": ("…", "$foreground"),
    "running": ("●", "$success"),
    "not responding": ("!", "$warning"),
    "starting": ("◌", "$success"),
    "finished": ("✓", "$success"),
    "stopped": ("■", "$warning"),
    "cancelled": ("■", "$text-muted"),
    "created": ("○", "$text-muted"),
    "queued": ("◔", "$text-accent"),
    "removed": ("○", "$text-muted"),
    "failed": ("✗", "$error"),
    "crashed": ("✗", "$error"),
    "unreadable": ("?", "$error"),
}
"""Sign and colour of each status; the word is always beside it."""


def status_mark(status: str) -> Content:
    """The status with its sign."""
    sign, style = MARKS[status]
    return Content.styled(f"{sign} {status}", style)
