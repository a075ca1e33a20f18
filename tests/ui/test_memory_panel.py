"""Which card's bar a run's memory is drawn on."""

from dataclasses import replace
from pathlib import Path

import pytest
from run_material import beginning, finished, step, training, written
from run_screen import GIB, MACHINE, shown, until
from textual.app import App, ComposeResult

from qlora_tui import hardware
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.runs import events
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.state import RunState, fold_all
from qlora_tui.ui import load_history
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.load_history import load_of, sparkline
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.memory_panel import MemoryPanel

ONE = MACHINE.gpus[0]
ON_SECOND = events.Resolved(field="model.device", value="cuda", reason="most free memory", gpu_uuid="GPU-1")


class Panel(App[None]):
    def compose(self) -> ComposeResult:
        yield MemoryPanel()


@pytest.mark.parametrize(
    ("cards", "log", "expected"),
    [
        pytest.param(2, [ON_SECOND, step(1)], [False, True], id="the-one-it-named"),
        pytest.param(2, [step(1)], [False, False], id="unknown-among-two"),
        pytest.param(1, [step(1)], [True], id="unknown-with-one"),
        pytest.param(1, [ON_SECOND, step(1)], [False], id="one-that-is-not-shown"),
    ],
)
async def test_a_runs_memory_is_drawn_on_the_card_that_it_works_on(
    cards: int, log: list[AnyEvent], expected: list[bool]
) -> None:
    gpus = tuple(replace(ONE, index=number, uuid=f"GPU-{number}") for number in range(cards))
    state = fold_all(RunState(), log)
    view = RunView(
        "one",
        Path(),
        "running",
        state,
        machine=replace(MACHINE, gpus=gpus),
        estimate=StoredEstimate(5 * GIB, 5 * GIB, "cuda", ""),
    )
    app = Panel()
    async with app.run_test(size=(80, 24)) as pilot:
        panel = app.query_one(MemoryPanel)
        panel.view = view
        await pilot.pause()
        lines = str(panel.visual).splitlines()
    bars = [lines[3 * number + 1] for number in range(cards)]
    assert ["█" in bar for bar in bars] == expected
    assert ["│" in bar for bar in bars] == expected


def test_the_load_before_now_is_drawn_in_the_width_there_is() -> None:
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    long = [0.0] * 500 + [1.0] + [0.0] * 99
    drawn = sparkline(long, 40)
    assert len(drawn) <= 40 and drawn.count("█") == 1, "a peak stays in view"
    assert load_of(MACHINE).vram == (pytest.approx(7 / 24),)
    assert load_of(MACHINE).cpu == 0.25


async def test_load_is_recorded_in_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Run place shows what happened before it was opened."""
    monkeypatch.setattr(hardware, "snapshot", lambda: MACHINE)
    monkeypatch.setattr(load_history, "PERIOD_S", 0.05)
    written("one", [*beginning(), *training(50), finished()])
    app = Workbench(place="settings")
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: len(app.loads.readings) >= 3)
        monkeypatch.setattr(load_history, "PERIOD_S", 1e9)
        await pilot.press("f4")
        seen = await shown(pilot, app, lambda view: view.loads)
        assert len(seen.loads) >= 3


def test_history_is_bounded_and_evenly_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(load_history.time, "monotonic", lambda: now_s[0])
    history = load_history.LoadHistory()
    for _ in range(4 * load_history.READINGS):
        now_s[0] += 0.5
        history.record(MACHINE)
    assert len(history.readings) == load_history.READINGS
