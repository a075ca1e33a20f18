"""What the tests of the screen share: no blinking, a machine that is always the same, waiting without sleeping."""

import time
from collections.abc import Iterator

import pytest
from screen_material import GIB, MACHINE, Settle
from textual.pilot import Pilot

from qlora_tui import hardware
from qlora_tui.errors import QloraError
from qlora_tui.forecast import speed
from qlora_tui.hardware import Machine

READERS = {"home", "runs", "settings", "compare", "queue", "change"}
"""Groups of the workers that read or change something and end."""


def _nothing_measured(*_: object) -> None:
    raise QloraError("a test measures nothing")


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing moves by itself, and nobody's colours or clock decide a test."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(speed, "measure", _nothing_measured)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without a GPU, with numbers that do not change."""
    from qlora_tui.ui.screens import home
    from qlora_tui.ui.widgets.machine_panel import Surroundings

    monkeypatch.setattr(hardware, "snapshot", lambda: MACHINE)
    monkeypatch.setattr(home, "surroundings", lambda: Surroundings(MACHINE, 100 * GIB, 400 * GIB))
    return MACHINE


@pytest.fixture
def settle() -> Settle:
    """Waits until what the screens of the frame read is shown."""

    async def wait(pilot: Pilot[None]) -> None:
        await pilot.pause()
        while any(worker.group in READERS and not worker.is_finished for worker in pilot.app.workers):
            await pilot.pause(0.01)
        await pilot.pause()
        await pilot.pause()

    return wait
