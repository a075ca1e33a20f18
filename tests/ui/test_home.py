"""Home: the machine, the runs as cards, and the one obvious next step."""

from dataclasses import replace
from typing import get_args

import pytest
from run_material import EVIL, beginning, finished, training, written
from screen_material import GIB, MACHINE, Settle, words
from textual.message import Message
from textual.widgets import Button, Static

from qlora_tui import hardware
from qlora_tui.hardware import Gpu, Machine
from qlora_tui.runs import events, jobs
from qlora_tui.starter import demo
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import ChatRequested, RunRequested, StartRequested
from qlora_tui.ui.screens import home
from qlora_tui.ui.statuses import MARKS
from qlora_tui.ui.widgets.machine_panel import MachinePanel, Surroundings
from qlora_tui.ui.widgets.meter import Meter
from qlora_tui.ui.widgets.run_card import RunCard

pytestmark = pytest.mark.usefixtures("machine")


async def test_the_first_start_offers_the_starter_demo_in_one_key(
    settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[StartRequested] = []
    monkeypatch.setattr(Workbench, "_start", lambda self, message, place: wanted.append(message))
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "Starter demo" in words(app) or "starter demo" in str(app.screen.query_one(Button).label)
        await pilot.press("enter")
        await pilot.pause()
        assert [message.preset for message in wanted] == ["starter"]
        assert demo.is_demo(wanted[0].config)
        assert app.current_mode == "run" and "Starting the run" in words(app), "shown immediately"
        await pilot.press("f2")
        await pilot.press("d", "d")
        await pilot.pause()
        assert len(wanted) == 1, "a second wish while a run is being started is not heard"


async def test_a_finished_run_is_a_card_that_opens_and_the_next_step_is_to_talk(settle: Settle) -> None:
    written("one", [*beginning(), *training(), finished()])
    seen: list[Message] = []
    app = Workbench()
    async with app.run_test(size=(120, 40), message_hook=seen.append) as pilot:
        await settle(pilot)
        card = app.screen.query_one(RunCard)
        assert "✓ finished" in words(app)
        assert "step 200/200" in words(app)
        assert card.query_one("Sparkline").display
        await pilot.press("enter")
        await pilot.pause()
        assert any(isinstance(message, ChatRequested) and message.name == "one" for message in seen)
        app.switch_mode("home")
        await settle(pilot)
        await pilot.click(RunCard)
        await pilot.pause()
        assert any(isinstance(message, RunRequested) and message.name == "one" for message in seen)


def test_whatever_a_run_does_has_a_sign() -> None:
    assert MARKS.keys() == {*get_args(jobs.Status), "reading", "removed", "not responding"}


async def test_what_a_run_says_is_never_markup(settle: Settle) -> None:
    written("one", [*beginning(), events.Failed(message=EVIL)])
    app = Workbench()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "[bold red]not markup[/] not red" in words(app)


async def test_a_new_run_appears_and_a_deleted_one_goes(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert not app.screen.query(RunCard)
        run = written("one", [*beginning(), *training(50)])
        app.screen._look()  # type: ignore[attr-defined]
        await settle(pilot)
        assert app.screen.query_one(RunCard).border_title == "one"
        run.path.rename(run.path.with_name(".gone"))
        app.screen._look()  # type: ignore[attr-defined]
        await settle(pilot)
        assert not app.screen.query(RunCard)


async def test_gpus_are_shown_with_memory_and_without_the_sensors_they_lack(
    settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(0, "NVIDIA [evil]", "GPU-1", 24 * GIB, 6 * GIB, (8, 9), 50, None, 120.4)
    monkeypatch.setattr(home, "surroundings", lambda: Surroundings(replace(MACHINE, gpus=(gpu,)), 100 * GIB, 400 * GIB))
    app = Workbench()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        panel = app.screen.query_one(MachinePanel)
        assert str(panel.query_one(Static).visual) == "GPU 0: NVIDIA [evil]  50 %  120 W"
        meter = panel.query(Meter).first()
        assert meter.numbers == "6.00 GiB free of 24.0 GiB"
        assert meter.share == pytest.approx(0.75)


def test_the_real_machine_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    around = home.surroundings()
    assert isinstance(hardware.snapshot(), Machine)
    assert 0 < around.disk_free_bytes <= around.disk_total_bytes
