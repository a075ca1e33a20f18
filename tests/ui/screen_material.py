"""A machine for the screen that is always the same, and what a screen says."""

from collections.abc import Awaitable, Callable

from textual.app import App
from textual.pilot import Pilot

from qlora_tui.hardware import Machine

GIB = 1 << 30
MACHINE = Machine(
    gpus=(),
    driver=None,
    cpu_cores=8,
    cpu_percent=12.0,
    ram_total_bytes=32 * GIB,
    ram_available_bytes=20 * GIB,
)
Settle = Callable[[Pilot[None]], Awaitable[None]]


def words(app: App[None]) -> str:
    """All the text on the screen, line by line."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())
