"""Resuming a run that ended for a reason that needs an answer first."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import fake_worker
from run_material import beginning, finished, training, written
from run_screen import is_whole, shown, until
from screen_material import words
from textual.widgets import Checkbox, Input, Static

from qlora_tui import atomic
from qlora_tui.data.downloads import Download
from qlora_tui.errors import ExitCode
from qlora_tui.runs import events
from qlora_tui.runs.checkpoints import seal
from qlora_tui.runs.events import Failed
from qlora_tui.ui import downloads
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.widgets.resume_options import ResumeOptions

__all__ = ["fake_worker"]
Behave = Callable[[str], None]
CHANGED = Failed(
    message="the dataset of run 'one' has changed since it started [bold]",
    hint="Restore the data, or go on: `qlora-tui resume --accept-changed-data`.",
    exit_code=ExitCode.DATA,
)
FULL = Failed(message="GPU memory ran out", hint="Try less.", exit_code=ExitCode.OUT_OF_MEMORY)


def flags(state: object) -> str:
    """What the fake worker was started with."""
    warnings: tuple[events.Warned, ...] = getattr(state, "warnings", ())
    return " ".join(warning.message for warning in warnings if warning.code == "flags")


@pytest.mark.parametrize(
    ("reason", "keys", "flag"),
    [(CHANGED, ("space", "y"), "--accept-changed-data"), (FULL, ("y",), "--replan-on-oom"), (FULL, ("space", "y"), "")],
)
async def test_what_stopped_it_is_asked_about(
    fake_worker: Behave, reason: Failed, keys: tuple[str, ...], flag: str
) -> None:
    written("one", [*beginning(), *training(4), reason])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ResumeOptions) and app.focused is not None)
        assert reason.message in str(app.screen.query_one(".resume-about", Static).visual)
        await pilot.press(*keys)
        seen = await shown(pilot, app, lambda view: view.state.attempt == 2 and flags(view.state) == flag)
        assert seen.state.failed is None


async def test_escape_leaves_the_run_as_it_is(fake_worker: Behave) -> None:
    written("one", [*beginning(), *training(4), CHANGED])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ResumeOptions))
        await pilot.press("escape")
        seen = await shown(pilot, app, is_whole)
        assert (seen.status, seen.state.attempt) == ("failed", 1)


async def test_a_download_is_agreed_to_with_its_size_and_place(
    fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing(config: object) -> list[Download]:
        return [Download("model far/away", 3 << 30, Path("/cache/hub"))]

    monkeypatch.setattr(downloads, "missing_downloads", missing)
    written("one", [*beginning(), Failed(message="far/away is not here", exit_code=ExitCode.MODEL)])
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, is_whole)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ResumeOptions))
        assert not app.screen.query_one(Checkbox).value
        assert "/cache/hub" in str(app.screen.query_one(".resume-about", Static).visual)
        await pilot.press("space", "y")
        await shown(pilot, app, lambda view: flags(view.state) == "--allow-download")


async def test_a_finished_run_is_trained_further(fake_worker: Behave) -> None:
    run = written("one", [*beginning(4), *training(4), finished(4)])
    checkpoint = run.checkpoints / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    atomic.write_json(checkpoint / "trainer_state.json", {"global_step": 4})
    seal(checkpoint)
    app = Workbench(run="one")
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app, lambda view: view.status == "finished")
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ResumeOptions) and isinstance(app.focused, Input))
        assert "training.epochs, now 1" in words(app)
        await pilot.press("enter")
        await until(pilot, lambda: "-refused" in app.screen.classes)
        assert "Enter the new total, more than 1." in words(app)
        assert "--set" not in words(app)
        for length, said in (("1", "already has training.epochs = 1.0"), ("2", "The result equals")):
            app.screen.query_one(Input).value = length
            await until(pilot, lambda said=said: said in words(app).replace("\n", " "))
        assert "-refused" not in app.screen.classes
        app.screen.query_one(Input).value = "0.01"
        await pilot.press("enter")
        await until(pilot, lambda: "has made 4 steps" in words(app))
        assert isinstance(app.screen, ResumeOptions), "a refused length can be corrected"
        app.screen.query_one(Input).value = "2"
        await pilot.press("enter")
        seen = await shown(pilot, app, lambda view: view.state.attempt == 2 and view.status == "finished")
        assert flags(seen.state) == "--set training.epochs=2"
