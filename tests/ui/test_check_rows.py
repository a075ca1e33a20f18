"""The panel that compares rows as read, as trained and as prompted: the workbench's `data check`."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command
from setup_material import give, know_few_models, machine, priced, setup, until
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from qlora_tui import settings
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ExitCode
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.check_rows import CheckRows

__all__ = ["command"]  # a fixture

ASKED = {"role": "user", "content": "Hi"}
ROWS = [
    [ASKED, {"role": "assistant", "content": "[bold]Hello\x1b]52;c;eA==\x07[/]"}],
    [ASKED],
    [ASKED, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Hello."}],
    [ASKED, {"role": "assistant", "content": "No.", "weight": 0}, ASKED, {"role": "assistant", "content": "Yes."}],
    [ASKED, {"role": "assistant", "content": "No.", "weight": 0}],
    [ASKED, {"role": "assistant", "content": "long " * 40_000}],
]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(11))
    know_few_models(monkeypatch)


def written(path: Path, rows: list[Any] = ROWS) -> Path:
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in rows))
    return path


def shown(app: Workbench, selector: str) -> str:
    content = app.screen.query_one(selector, Static).content
    return content.plain if isinstance(content, Content) else str(content)


def workbench(path: Path, theme: str = "ember") -> Workbench:
    settings.save(Settings(theme=theme))
    app = Workbench(place="setup")
    app.draft = resolve(overrides=[f"data.source={json.dumps(str(path))}"])
    return app


async def opened(pilot: Pilot[None], app: Workbench) -> None:
    """Open the panel with its key, from the tab of the section."""
    await priced(pilot, app)
    await pilot.press("d", "escape", "v")
    await until(pilot, lambda: isinstance(app.screen, CheckRows))


async def checked(pilot: Pilot[None], app: Workbench) -> OptionList:
    await opened(pilot, app)
    await until(pilot, lambda: "Checking" not in shown(app, "#check-summary"))
    return app.screen.query_one(OptionList)


async def test_panel_shows_what_data_check_prints(tmp_path: Path, command: Cli) -> None:
    path = written(tmp_path / "rows.jsonl")
    printed = command("data", "check", str(path), "--json")
    assert printed.code == ExitCode.DATA
    expected = json.loads(printed.out)["rows"]
    app = workbench(path)
    async with app.run_test(size=(160, 45)) as pilot:
        listed = await checked(pilot, app)
        lines = [str(option.prompt) for option in listed.options]
        assert [line[2:19].rstrip() for line in lines] == [row["status"] for row in expected]
        assert [line[0] == "✓" for line in lines] == [row["passes"] for row in expected]
        assert shown(app, "#check-summary").startswith("4 of 6 rows pass, 2 not trained")
        assert listed.highlighted == 1  # The first row that fails.
        await pilot.press("f")
        await until(pilot, lambda: listed.highlighted == 4)
        await pilot.press("f", "home")
        await until(pilot, lambda: "[bold]Hello" in shown(app, "#check-texts"))
        assert "\x1b" not in shown(app, "#check-texts")
        await pilot.press("end")
        await until(pilot, lambda: "more characters" in shown(app, "#check-texts"))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is setup(app))


async def test_panel_shows_the_error_that_data_check_prints(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    error = command("data", "check", str(path)).err
    app = workbench(path)
    async with app.run_test(size=(80, 24)) as pilot:
        await checked(pilot, app)
        message, _, hint = shown(app, "#check-summary").partition("\n")
        assert f"error: {message}\n" in error and hint in error


async def test_panel_can_be_left_while_it_checks(tmp_path: Path) -> None:
    app = workbench(written(tmp_path / "rows.jsonl"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is setup(app))
        await until(pilot, lambda: not any(isinstance(worker.node, CheckRows) for worker in app.workers))


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "ember"), ((160, 45), "paper")])
def test_check_rows(snap_compare: Any, tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    """You should see how many rows pass, one line per row, and the texts of the first row that fails."""
    app = workbench(written(tmp_path / "rows.jsonl", ROWS[:5]), theme)

    async def before(pilot: Pilot[None]) -> None:
        await checked(pilot, app)
        await until(pilot, lambda: "As read" in shown(app, "#check-texts"))

    assert snap_compare(app, terminal_size=size, run_before=before)
