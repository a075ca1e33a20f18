"""Shared by both apps: themes without colours, and internal errors."""

import os
import subprocess
import sys

import pytest
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from run_material import beginning, finished, training, written
from run_screen import is_whole, shown, until
from screen_material import Settle, words
from textual.color import Color
from textual.worker import WorkerFailed

from qlora_tui import paths, settings
from qlora_tui.runs.store import RunFolder
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.compare import Compare
from qlora_tui.ui.terminal_app import Colourless, Undimmed

SECRET = "hf_" + "secret"
FAULTY = """
import sys
from qlora_tui.cli import main
from qlora_tui.ui.screens.home import HomePlace

def on_screen_resume(self):
    token = "hf_" + "secret"
    raise ZeroDivisionError("no\\x1b[31m way")

HomePlace.on_screen_resume = on_screen_resume
sys.argv = ["qlora-tui"]
main()
"""


@pytest.fixture
def two_runs(machine: object) -> tuple[RunFolder, RunFolder]:
    return (
        written("alpha", [*beginning(), *training(50)]),
        written("beta", [*beginning(), *training(200), finished()]),
    )


@pytest.mark.parametrize(
    ("theme", "variable"), [("ember", "NO_COLOR"), ("terminal", "NO_COLOR"), ("terminal", "TEXTUAL_FILTERS")]
)
@pytest.mark.usefixtures("two_runs")
async def test_plots_are_drawn_without_colours(
    theme: str, variable: str, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a plot have no style at all: they are redrawn in Run and in Compare, at other sizes too."""
    monkeypatch.setenv("NO_COLOR", "1") if variable == "NO_COLOR" else None
    monkeypatch.setattr("textual.constants.FILTERS", "dim" if variable == "TEXTUAL_FILTERS" else "")
    settings.save(Settings(theme=theme))
    app = Workbench(run="beta")
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(pilot, app, is_whole)
        await until(pilot, lambda: app.screen.query(".-drawn"))
        await pilot.press("f5")
        await settle(pilot)
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, Compare) and app.screen.query(".-drawn"))
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert "training loss" in words(app)


@pytest.mark.parametrize("theme", ["ember", "terminal"])
@pytest.mark.usefixtures("two_runs")
async def test_the_cursor_is_visible_without_colours(
    theme: str, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    settings.save(Settings(theme=theme))
    app = Workbench(place="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)

        def rows() -> list[Style]:
            drawn = [segment for line in app.screen._compositor.render_strips() for segment in line]
            return [one.style for one in drawn if one.style and one.text.rstrip() in ("   alpha", "   beta")]

        await until(pilot, lambda: len(rows()) == 2)
        first, second = rows()
        assert (first.bgcolor, first.reverse) != (second.bgcolor, second.reverse)
        for style in (first, second):
            assert style.color is not None and (style.color != style.bgcolor or style.color.is_default)


def test_segments_without_colours_are_left_as_they_are() -> None:
    background = Color(0, 0, 0)
    bare = [
        Segment("a"),
        Segment("b", Style(dim=True)),
        Segment("c", Style(dim=True, color=RichColor.default(), bgcolor=RichColor.default())),
    ]
    for theme in ("terminal", "ember"):
        app = Workbench()
        app.theme = theme
        assert [each.text for each in Colourless(app).apply(bare, background)] == ["a", "b", "c"]
    assert Undimmed().apply(bare, background) == bare
    assert Undimmed().apply(bare, Color(0, 0, 0, ansi=-1)) == bare


def test_a_fault_of_the_workbench_exits_1_with_one_line_and_a_traceback_without_values() -> None:
    terminal, stdin = os.openpty()
    result = subprocess.run(
        [sys.executable, "-c", FAULTY], stdin=stdin, stdout=stdin, stderr=subprocess.PIPE, timeout=120, check=False,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(stdin)
    os.close(terminal)
    assert result.returncode == 1
    said = result.stderr.decode().rpartition("\x1b[?1049l")[2].rpartition("\x1b[?25h")[2]
    file = paths.cache() / "last-traceback.txt"
    assert len(said.strip().splitlines()) == 1, said
    assert "error: internal error: ZeroDivisionError: no way" in said and str(file) in said
    assert "in on_screen_resume" in file.read_text()
    for text in (result.stderr.decode(), file.read_text()):
        assert SECRET not in text and "locals" not in text


async def test_a_fault_in_a_worker_is_the_crash_of_the_app(machine: object) -> None:
    app = Workbench(place="settings")

    async def fail() -> None:
        raise ZeroDivisionError("deep")

    with pytest.raises(WorkerFailed):
        async with app.run_test() as pilot:
            app.run_worker(fail())
            await pilot.pause()
    assert isinstance(app.crash, ZeroDivisionError)
    assert app.return_code == 1


def test_theme_of_the_settings_is_applied_from_the_first_frame() -> None:
    for name, light in {"terminal": False, "paper": True}.items():
        settings.save(Settings(theme=name))
        app = Workbench()
        later = Workbench()
        later.theme = "ember"
        later.theme = name
        assert app.classes == later.classes
        assert ("-light-mode" in app.classes) == light
        assert len(app.get_line_filters()) == len(later.get_line_filters()) == (0 if name == "terminal" else 1)
