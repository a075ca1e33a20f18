"""The Run place: what it shows of a run that anybody started, and what it does to it."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command_line import fake_worker, kill
from run_material import EVIL, beginning, finished, training, written
from run_screen import head, is_whole, place, shown, until, view
from screen_material import words
from textual.widgets import Static, Tabs

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import events, jobs, store
from qlora_tui.ui import run_actions
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import ChatRequested
from qlora_tui.ui.run_reader import RunReader
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.confirm import Confirm
from qlora_tui.ui.widgets.curve_lines import CurveLines
from qlora_tui.ui.widgets.run_log import RunLog
from qlora_tui.ui.widgets.run_progress import RunProgress
from qlora_tui.ui.widgets.run_texts import SamplesPanel, WarningsPanel

__all__ = ["fake_worker"]
Behave = Callable[[str], None]
WIDE = (160, 45)


@pytest.fixture
def waiting(fake_worker: Behave) -> Iterator[store.RunFolder]:
    """A run whose worker has made a step and waits to be told something."""
    fake_worker("wait")
    run = store.create("one", RunConfig(), {})
    jobs.start(run)
    yield run


def text_of(app: Workbench, kind: type[SamplesPanel] | type[WarningsPanel]) -> str:
    return str(app.screen.query_one(kind).query_one(Static).visual)


async def test_a_finished_run_is_shown_whole() -> None:
    written("one", [*beginning(), *training(), finished()], "loading\n")
    app = Workbench(run="one")
    async with app.run_test(size=WIDE) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: len(app.screen.query("CurvePlot.-drawn")) == 3)
        for said in ("one  ✓ finished", "200 of 200 steps  100%", "409,600 tokens", "200 steps in 1:02"):
            assert said in head(app)
        assert "Peak memory 4.90 GiB, estimated 5.00 GiB (+2.0%)" in head(app)
        assert "step 200" in text_of(app, SamplesPanel)
        assert "compute_dtype = bfloat16" in text_of(app, WarningsPanel)
        assert list(app.screen.query_one(RunLog).lines)[:1] == ["loading"]
        actions = [name for name in ("save", "stop", "cancel", "resume") if place(app).check_action(name, ())]
        assert actions == ["resume"], "it can be trained further"


async def test_foreign_text_is_inert_everywhere() -> None:
    log = [*beginning(), *training(50), events.Warned(code="x", message=EVIL)]
    log.append(events.Failed(message=EVIL, hint=EVIL, where="tokenizing", exit_code=10))
    written("one", log, EVIL + "\n")
    app = Workbench(run="one")
    async with app.run_test(size=WIDE) as pilot:
        await shown(pilot, app, is_whole)
        everything = [head(app), text_of(app, SamplesPanel), text_of(app, WarningsPanel)]
        everything += list(app.screen.query_one(RunLog).lines)[:1]
        for text in everything:
            assert "[bold red]not markup[/] not red" in text
            assert "\x1b" not in text
        assert "r resumes from the start" in head(app)


async def test_way_back_is_visible_whatever_the_reason_is() -> None:
    log = [*beginning(), *training(50)]
    log.append(events.Failed(message="no room " * 200, hint="free some " * 200, where="saving", exit_code=11))
    written("one", log)
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.pause()
        assert "Failed while saving: no room" in words(app) and "free some" in words(app)
        assert "r resumes from the start." in words(app)


async def test_without_a_name_the_run_that_trains_is_shown(waiting: store.RunFolder) -> None:
    written("newer", [*beginning(), *training(50), finished()])
    app = Workbench(place="run")
    async with app.run_test(size=(80, 24)) as pilot:
        seen = await shown(pilot, app, is_whole)
        assert seen.name == waiting.name


async def test_without_a_name_the_newest_run_is_shown() -> None:
    written("older", beginning())
    written("newer", beginning())
    app = Workbench(place="run")
    async with app.run_test() as pilot:
        assert (await shown(pilot, app, is_whole)).name == "newer"
        app.run_name = "older"
        await shown(pilot, app, lambda seen: seen.name == "older")


@pytest.mark.parametrize(("name", "said"), [(None, "F3 sets one up"), ("nobody", "no run named 'nobody'")])
async def test_no_run_is_said_with_what_to_do(name: str | None, said: str) -> None:
    app = Workbench(run=name, place="run")
    async with app.run_test() as pilot:
        await until(pilot, lambda: said in str(app.screen.query_one("#run-missing", Static).visual))
        assert not app.screen.query_one("RunPanel").display
        await pilot.press("s", "t", "c", "r", "a", "o")
        assert view(app) is None


async def test_a_run_that_cannot_be_read_is_said() -> None:
    store.create("one", RunConfig(), {}).events.mkdir()
    app = Workbench(run="one")
    async with app.run_test() as pilot:
        await until(pilot, lambda: "cannot read" in str(app.screen.query_one("#run-missing", Static).visual))
        assert not app.screen.query_one("RunPanel").display


async def test_save_stop_and_resume_by_key(fake_worker: Behave, waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running" and seen.state.step_number == 1)
        await pilot.press("s")
        seen = await shown(pilot, app, lambda seen: seen.state.checkpoints)
        assert seen.is_live
        await until(pilot, lambda: any("checkpoint-1 is written" in note.message for note in app._notifications))
        await until(pilot, lambda: "Asked" not in head(app))
        await pilot.press("t")
        await shown(pilot, app, lambda seen: seen.status == "stopped")
        await until(pilot, lambda: "Stopped at step 1. r resumes from step 1." in head(app))
        fake_worker("finish")
        freed: list[int] = []
        app.release_chat = lambda: freed.append(jobs.replay(waiting).attempt)
        await pilot.press("r")
        seen = await shown(pilot, app, lambda seen: seen.status == "finished")
        assert freed == [1], "the memory of a chat is free before the second attempt begins"
        assert (seen.state.attempt, seen.state.step_number) == (2, 4)


async def test_request_is_sent_once_when_the_place_changes(waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        here = place(app)
        await pilot.press("s", "f2")
        await until(pilot, lambda: len(jobs.replay(waiting).checkpoints) == 1)
        await until(pilot, lambda: all(worker.is_finished for worker in app.workers if worker.group == "control"))
        await pilot.press("f4")
        await until(pilot, lambda: not here.asked)
    assert len(waiting.control.read_text().splitlines()) == 1


async def test_a_request_without_an_answer_ends_with_the_workbench(
    fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    ask = run_actions.ask

    def noted(*arguments: Any) -> None:
        ask(*arguments)
        ended.set()

    monkeypatch.setattr(run_actions, "ask", noted)
    fake_worker("deaf")
    jobs.start(store.create("one", RunConfig(), {}))
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        await pilot.press("s")
        await until(pilot, lambda: "Asked for a checkpoint." in head(app))
    assert await asyncio.to_thread(ended.wait, 60)


async def test_what_was_asked_is_said_until_the_worker_answers(fake_worker: Behave) -> None:
    fake_worker("deaf")
    run = store.create("one", RunConfig(), {})
    jobs.start(run)
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        await pilot.press("s")
        await until(pilot, lambda: "Asked for a checkpoint." in head(app))


async def test_cancel_asks_and_the_safe_answer_has_the_focus(waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        assert jobs.is_alive(waiting)
        await shown(pilot, app, lambda seen: seen.status == "running")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await shown(pilot, app, lambda seen: seen.status == "cancelled")
    assert jobs.look(waiting).status == "cancelled"


async def test_a_dead_worker_is_said_with_its_last_words_and_the_way_back(waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running" and seen.state.step_number == 1)
        with waiting.stdio.open("a") as output:
            output.write("CUDA error: [device] lost\n")
        kill(waiting)
        await shown(pilot, app, lambda seen: seen.status == "crashed")
        assert "died at step 1 while training" in head(app)
        assert "CUDA error: [device] lost" in head(app)
        assert "r resumes from the start" in head(app)
        assert place(app).check_action("resume", ())


async def test_a_refusal_is_told_and_nothing_stays_asked(waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        place(app).action_resume()
        await until(pilot, lambda: any("running already" in note.message for note in app._notifications))
        assert place(app).asked == ""


async def test_two_windows_and_a_reopened_one_show_the_same(waiting: store.RunFolder) -> None:
    states = []
    for _ in range(2):
        app = Workbench(run="one")
        async with app.run_test(size=(80, 24)) as pilot:
            states.append((await shown(pilot, app, lambda seen: seen.state.step_number == 1)).state)
        assert jobs.is_alive(waiting)
    assert states[0] == states[1] == jobs.replay(waiting)


async def test_in_80_by_24_every_panel_is_one_key_away_and_the_plot_comes_first() -> None:
    written("one", [*beginning(), *training()], "loading\n")
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        assert app.screen.query_one("#plot-loss").region.height > 12
        seen = []
        for _ in range(5):
            seen.append([panel.id for panel in app.screen.query("#plots, .panel") if panel.region])
            await pilot.press("]")
        assert seen == [["plots"], ["memory"], ["samples"], ["warnings"], ["log"]]
        await pilot.click("#tab-samples")
        await until(pilot, lambda: app.screen.query_one(SamplesPanel).region)
        assert not any(plot.region for plot in app.screen.query("CurvePlot"))


async def test_sparkline_replaces_the_plot_without_room() -> None:
    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(40, 14)) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: app.screen.query_one(CurveLines).region.height > 2)
        assert "loss, smoothed" in words(app)


async def test_more_room_shows_more_at_any_time() -> None:
    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: len(app.screen.query("CurvePlot")) == 3)
        for size, plots, panels in (((120, 35), 1, 1), (WIDE, 3, 4), ((80, 24), 1, 0), ((30, 10), 0, 0)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert len([plot for plot in app.screen.query("CurvePlot") if plot.region]) == plots
            assert len([panel for panel in app.screen.query(".panel") if panel.region]) == panels
            assert app.screen.query_one(Tabs).display == (size != WIDE)


async def test_a_curve_in_the_making_and_a_value_that_is_not_finite() -> None:
    first = events.Step(step=1, epoch=0, loss=None, learning_rate=0, grad_norm=None, tokens=1, tokens_per_s=1)
    written("one", [*beginning(), first])
    app = Workbench(run="one")
    async with app.run_test(size=WIDE) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: app.screen.query("#plot-rate.-drawn"))
        assert "loss not finite" in head(app)
        assert not app.screen.query("#plot-loss.-drawn")


async def test_chat_and_folder_are_asked_for_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    run = written("one", [*beginning(), *training(), finished()])
    heard: list[object] = []
    app = Workbench(run="one")
    async with app.run_test(message_hook=heard.append) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.press("o")
        assert app.clipboard == str(run.path)
        await pilot.press("a")
        await until(pilot, lambda: any(isinstance(message, ChatRequested) for message in heard))
    assert [message.name for message in heard if isinstance(message, ChatRequested)][:1] == ["one"]


async def test_nothing_is_read_while_another_place_is_on_screen(waiting: store.RunFolder) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "running")
        here = place(app)
        await pilot.press("f2")
        await until(pilot, lambda: all(worker.is_finished for worker in app.workers if worker.group == "reader"))
        kill(waiting)
        assert here.view is not None and here.view.status == "running"
        await pilot.press("f4")
        await shown(pilot, app, lambda seen: seen.status == "crashed")


async def test_a_run_that_is_removed_and_made_again_is_read_from_its_start() -> None:
    run = written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        shutil.rmtree(run.path)
        await shown(pilot, app, lambda seen: seen.status == "removed")
        assert "was removed" in head(app)
        written("one", [*beginning(), *training(7)])
        await shown(pilot, app, lambda seen: seen.state.step_number == 7)


def test_a_view_waits_until_the_one_before_it_is_on_screen() -> None:
    """A screen that is slow gets the newest view when it is ready, and never two."""
    run = written("one", beginning())
    reader = RunReader(run, refresh_hz=30)
    views: list[RunView] = []
    came = threading.Condition()

    def show(seen: RunView) -> None:
        with came:
            views.append(seen)
            came.notify()

    thread = threading.Thread(target=reader.follow, args=(show,))
    thread.start()
    try:
        with came:
            assert came.wait_for(lambda: views, timeout=30)
        with run.events.open("a") as file:
            for event in training(5):
                file.write(event.model_copy(update={"seq": 99, "time_s": 1.0}).model_dump_json() + "\n")
        with came:
            assert not came.wait_for(lambda: len(views) > 1, timeout=0.3)
        reader.shown()
        with came:
            assert came.wait_for(lambda: len(views) > 1, timeout=30)
        assert views[-1].state.step_number == 5
    finally:
        reader.stop()
        thread.join(timeout=30)
    assert not thread.is_alive()


async def test_the_three_losses_are_named_and_explained() -> None:
    written("one", [*beginning(), *training(), finished()])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        line = next(line for line in head(app).splitlines() if line.startswith("loss "))
        for name in ("last", "smoothed", "mean"):
            assert name in line and f"**{name}**" in place(app).HELP
        assert "mean loss 0.51" in head(app)
        assert "smoothed: " in str(app.screen.query_one(RunProgress).tooltip)


async def test_samples_are_compared_between_steps() -> None:
    log = [*beginning(), *training(60)]
    for number, answer in ((20, "Mira sold it."), (40, "Mira owns it."), (60, "Mira owns it.")):
        log.append(events.Sample(step=number, prompt="Who owns the boat?", answer=answer))
    written("one", log)
    app = Workbench(run="one")
    async with app.run_test(size=WIDE) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.press("v")
        await pilot.pause()
        text = text_of(app, SamplesPanel)
        assert "› Who owns the boat?\n  step 20  Mira sold it.\n  step 40  Mira owns it.\n  step 60  Mira" in text
        visual = app.screen.query_one(SamplesPanel).query_one(Static).visual
        changed = [text[span.start : span.end] for span in visual.spans if "underline" in str(span.style)]
        assert changed == ["owns"]
        await pilot.press("v")
        await pilot.pause()
        assert text_of(app, SamplesPanel).startswith("step 60")


@pytest.mark.parametrize("size", [(80, 24), (120, 35), WIDE])
@pytest.mark.parametrize("panel", ["#plot-loss", "#samples", "#log"])
async def test_panel_is_maximized_and_restored(size: tuple[int, int], panel: str) -> None:
    written("one", [*beginning(), *training(), finished()], "loading\n")
    app = Workbench(run="one")
    async with app.run_test(size=size) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        app.screen.query_one(Tabs).active = {"#plot-loss": "tab-plots"}.get(panel, f"tab-{panel[1:]}")
        await pilot.pause()
        before = [(one.id, one.region) for one in app.screen.query(".box, Tabs, RunProgress")]
        app.screen.query_one(panel).focus()
        await pilot.press("z")
        await pilot.pause()
        large = app.screen.query_one(panel).region
        assert large.width == size[0] and large.height >= size[1] - 10
        assert [one.id for one in app.screen.query(".box") if one.region] == [panel[1:]]
        assert "200 of 200 steps" in words(app) and "╱" not in words(app)
        assert words(app).count("━━━━") > 0, "a whole progress bar"
        await pilot.press("z")
        await pilot.pause()
        assert [(one.id, one.region) for one in app.screen.query(".box, Tabs, RunProgress")] == before


async def test_compared_runs_are_followed_while_they_train() -> None:
    from qlora_tui.ui.screens.compare import Compare

    written("old", [*beginning(), *training(), finished()])
    run = written("young", [*beginning(), *training(20)])
    app = Workbench(place="runs")
    async with app.run_test(size=WIDE) as pilot:
        with jobs.hold(run):
            app.push_screen(Compare(["old", "young"]))
            await until(pilot, lambda: isinstance(app.screen, Compare) and app.screen.query("#overlaid.-drawn"))
            plot: Any = app.screen.query_one("#overlaid")
            assert [line.curve.steps[-1] for line in plot.drawn] == [200, 20]
            with run.events.open("a") as file:
                for event in training()[20:40]:
                    file.write(event.model_dump_json() + "\n")
            await until(pilot, lambda: [line.curve.steps[-1] for line in plot.drawn] == [200, 40])
