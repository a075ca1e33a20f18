"""What the Run place looks like: a small and a large terminal, a dark and a light theme, the same bytes each time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from run_material import EVIL, beginning, finished, training, written
from run_screen import MACHINE, is_whole, shown, until
from textual.pilot import Pilot

from qlora_tui import hardware, settings
from qlora_tui.runs import events, jobs
from qlora_tui.settings import Settings
from qlora_tui.ui import load_history, run_reader
from qlora_tui.ui.app import Workbench

Snap = Callable[..., bool]
SIZES = [pytest.param((80, 24), id="80x24"), pytest.param((160, 45), id="160x45")]
THEMES = ["ember", "paper"]


@pytest.fixture(autouse=True)
def same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensors are read once, so that the number of readings does not depend on time."""
    monkeypatch.setattr(hardware, "snapshot", lambda: MACHINE)
    monkeypatch.setattr(load_history, "PERIOD_S", 1e9)
    monkeypatch.setattr(run_reader, "_SENSORS_S", 1e9)
    monkeypatch.setattr(run_reader, "_RESTING_SENSORS_S", 1e9)


def looks_right(snap_compare: Snap, size: tuple[int, int], theme: str, *keys: str) -> bool:
    """Whether the run "one" looks as before once everything is read, drawn and the keys are pressed."""
    settings.save(Settings(theme=theme))
    app = Workbench(run="one")

    async def ready(pilot: Pilot[Any]) -> None:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: len(app.screen.query("CurvePlot")) == 3)
        for plot in app.screen.query("CurvePlot"):
            await until(pilot, lambda plot=plot: not plot.display or not plot.region or plot.border_title)
        for key in keys:
            await pilot.press(key)
        await asyncio.wait_for(pilot.pause(), 30)

    return snap_compare(app, terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_finished(snap_compare: Snap, size: tuple[int, int], theme: str) -> None:
    """You should see a full green bar, 200 of 200 steps, and a line that says that the run has finished, with its peak
    memory beside the estimate and that `a` opens a chat. Small: tabs, and a falling sparkline in the colour of the
    loss. Large: the loss with eval diamonds, learning rate and gradient norm below it, the card with its estimate as a
    line, the host, samples with their square brackets, choices, and the log."""
    log = "\n".join(f"line {number} {EVIL}" for number in range(20))
    written("one", [*beginning(), *training(), finished()], log + "\n")
    assert looks_right(snap_compare, size, theme)


@pytest.mark.parametrize("size", SIZES)
def test_running(snap_compare: Snap, size: tuple[int, int]) -> None:
    """You should see a run at step 120 of 200: a bar at 60 %, tokens per second, the time left, and the keys to save,
    stop and cancel in the footer. Large: the card's bar in four parts (allocated, reserved, others, free)."""
    run = written("one", [*beginning(), *training(120)], "loading\n")
    with jobs.hold(run):
        assert looks_right(snap_compare, size, "ember")


@pytest.mark.parametrize("size", SIZES)
def test_crashed(snap_compare: Snap, size: tuple[int, int]) -> None:
    """You should see in red that the worker died at step 120, what its output ends with, and that `r` resumes from step
    100; resume is in the footer and cancel is not. Small: the warnings' tab, which holds one warning."""
    log = [*beginning(), events.Warned(code="x", message=f"18 rows are equal {EVIL}"), *training(120)]
    written("one", log, "loading\nCUDA error: device lost\n")
    assert looks_right(
        snap_compare, size, "ember", "right_square_bracket", "right_square_bracket", "right_square_bracket"
    )


def test_log_scale_and_cursor(snap_compare: Snap) -> None:
    """You should see the loss on a logarithmic axis (its title says so) beside tabs with the memory, a vertical line
    some columns from the right edge, and under the plot the step there with the values of both curves."""
    written("one", [*beginning(), *training()])
    assert looks_right(snap_compare, (120, 35), "paper", "tab", "y", "left", "left", "left", "left", "left")


def test_no_run(snap_compare: Snap) -> None:
    """You should see one line that says that there is no run yet and which key sets one up."""
    app = Workbench(place="run")

    async def ready(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: not app.workers or all(worker.is_finished for worker in app.workers))

    assert snap_compare(app, terminal_size=(80, 24), run_before=ready)
