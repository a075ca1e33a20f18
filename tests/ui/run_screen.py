"""Driving the Run place in a test: waiting for what it shows, and reading it."""

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from qlora_tui.hardware import Gpu, Machine
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.screens.run import RunPlace
from qlora_tui.ui.widgets.run_outcome import RunOutcome
from qlora_tui.ui.widgets.run_progress import RunProgress

GIB = 1 << 30
PATIENCE_S = 90.0
"""Reached by a fault alone, on a busy machine too."""

MACHINE = Machine(
    gpus=(Gpu(0, "NVIDIA Test 24G", "GPU-0", 24 * GIB, 17 * GIB, (8, 6), 87, 61, 214.0),),
    driver="1",
    cpu_cores=8,
    cpu_percent=25.0,
    ram_total_bytes=32 * GIB,
    ram_available_bytes=24 * GIB,
)
"""A machine that is the same everywhere."""


async def until(pilot: Pilot[Any], condition: Callable[[], Any]) -> None:
    """Let the app work until `condition` holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came to be"
        await pilot.pause(0.02)


def place(app: Workbench) -> RunPlace:
    """The Run place, which must be on screen."""
    assert isinstance(app.screen, RunPlace)
    return app.screen


def view(app: Workbench) -> RunView | None:
    """What the Run place shows, or None while something else is on screen or nothing was read."""
    return app.screen.view if isinstance(app.screen, RunPlace) else None


async def shown(pilot: Pilot[Any], app: Workbench, condition: Callable[[RunView], Any]) -> RunView:
    """The first view on screen for which `condition` holds."""
    await until(pilot, lambda: (seen := view(app)) is not None and condition(seen))
    found = view(app)
    assert found is not None
    await pilot.pause()
    return found


def is_whole(seen: RunView) -> bool:
    """Whether everything there is was read."""
    return seen.status != "reading" and seen.machine is not None


def head(app: Workbench) -> str:
    """The lines above the panels: progress, and how the run ended."""
    return "\n".join(str(app.screen.query_one(kind).visual) for kind in (RunProgress, RunOutcome))
