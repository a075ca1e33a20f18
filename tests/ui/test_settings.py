"""Settings: kept at once, shown at once, and the token never."""

from pathlib import Path

import pytest
from screen_material import Settle
from textual.widgets import Input, Static

from qlora_tui import paths, settings
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.settings import KeyTable
from qlora_tui.ui.widgets.ask_key import AskKey
from qlora_tui.ui.widgets.theme_list import ThemeList

pytestmark = pytest.mark.usefixtures("machine")


async def test_a_theme_is_shown_under_the_cursor_and_kept_by_enter(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.screen.query_one(ThemeList).has_focus
        await pilot.press("j")
        await pilot.pause()
        assert app.theme == "fog"
        assert settings.load().theme == "ember"
        await pilot.press("tab")
        await pilot.pause()
        assert app.theme == "ember", "leaving without enter goes back"
        await pilot.press("shift+tab", "k", "enter")
        await pilot.pause()
        assert (app.theme, settings.load().theme) == ("fog", "fog") or settings.load().theme == app.theme


@pytest.mark.parametrize("place", ["home", "settings", "chat"])
async def test_the_theme_chosen_with_f12_is_kept_and_escape_restores(place: str, settle: Settle) -> None:
    app = Workbench(place=place)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("f12", "down")
        await pilot.pause()
        assert app.theme == "fog"
        await pilot.press("escape")
        await pilot.pause()
        assert (app.theme, settings.load().theme, app.current_mode) == ("ember", "ember", place)
        await pilot.press("f12", "down", "enter")
        await pilot.pause()
        assert (app.theme, settings.load().theme, app.current_mode) == ("fog", "fog", place)
        await pilot.press("f12", "f12", "f7")
        await settle(pilot)
        highlighted = app.screen.query_one(ThemeList).highlighted_option
        assert highlighted is not None and highlighted.id == "fog"


@pytest.mark.parametrize("leave", ["escape", "f2", "f10", "q", "right_square_bracket"])
async def test_previewed_theme_is_restored_when_the_list_closes(leave: str, settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("j")
        await pilot.pause()
        assert app.theme == "fog"
        await pilot.press(leave)
        await settle(pilot)
        assert (app.theme, settings.load().theme) == ("ember", "ember")


async def test_a_key_is_changed_used_and_given_back(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("right_square_bracket")
        await pilot.pause()
        table = app.screen.query_one(KeyTable)
        table.move_cursor(row=table.get_row_index("workbench.runs"))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, AskKey)
        await pilot.press("ctrl+d")
        await pilot.pause()
        assert settings.load().keymap == {"workbench.runs": "ctrl+d"}
        await pilot.press("ctrl+d")
        assert app.current_mode == "runs"
        await pilot.press("f7")
        await pilot.press("r")
        await pilot.pause()
        assert settings.load().keymap == {}
        await pilot.press("f5")
        assert app.current_mode == "runs"


async def test_a_key_that_is_taken_is_refused(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await settle(pilot)
        await pilot.press("right_square_bracket")
        await pilot.pause()
        table = app.screen.query_one(KeyTable)
        table.move_cursor(row=table.get_row_index("workbench.runs"))
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("f2")
        await pilot.pause()
        assert settings.load().keymap == {}
        assert any("already the key of workbench.home" in toast.message for toast in app._notifications)


async def test_the_refresh_rate_is_kept_only_when_it_is_one(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        field = app.screen.query_one("#refresh-hz", Input)
        field.value = "0"
        await pilot.pause()
        assert field.has_class("-invalid")
        field.value = "2"
        await pilot.pause()
        assert (field.has_class("-invalid"), settings.load().refresh_hz) == (False, 2.0)


async def test_the_token_is_known_and_never_shown(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        shown = str(app.screen.query_one("#token", Static).visual)
        assert "HF_TOKEN" in shown
        assert "verysecret" not in shown


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_has_help(name: str) -> None:
    assert len(Settings.model_fields[name].description or "") > 20


async def test_themes_are_reloaded_and_broken_ones_named_in_one_toast(settle: Settle) -> None:
    folder = paths.user_themes()
    folder.mkdir(parents=True)
    mine = folder / "mine.toml"
    mine.write_text(Path(paths.shipped("themes") / "slate.toml").read_text())
    settings.save(Settings(theme="mine"))
    app = Workbench()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        assert app.theme == "mine"
        mine.write_text(mine.read_text().replace("#12161c", "#300000"))
        (folder / "broken.toml").write_text("primary = 'no colour'\n[variables]\nloss='red'\neval='red'\nvram='red'\n")
        (folder / "torn.toml").write_text("primary = \n")
        app._watch_themes()
        await pilot.pause()
        assert app.screen.styles.background.r > 40, "a theme that is saved is shown again"
        toasts = [toast.message for toast in app._notifications]
        assert len(toasts) == 1
        assert "broken.toml" in toasts[0]
        assert "torn.toml" in toasts[0]


async def test_a_chosen_theme_that_is_gone_falls_back(settle: Settle) -> None:
    settings.save(Settings(theme="gone"))
    app = Workbench()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        assert app.theme == "textual-dark"
        assert any("gone" in toast.message for toast in app._notifications)
