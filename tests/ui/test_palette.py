"""The command palette finds everything by name, from any place."""

import pytest
from run_material import beginning, finished, training, written
from run_screen import until
from screen_material import Settle
from textual.widgets import Input, OptionList

from qlora_tui import settings
from qlora_tui.config.fields import fields
from qlora_tui.ui import glossary, palette
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens import settings as settings_place
from qlora_tui.ui.screens.glossary import Glossary
from qlora_tui.ui.screens.manual import Manual

pytestmark = pytest.mark.usefixtures("machine")


def test_palette_lists_everything_by_name() -> None:
    written("alpha", [*beginning(), *training(50), finished()])
    names = {one.name for one in palette.everything("home")}
    assert {f"setting: {key}" for key in fields()} <= names
    assert {f"term: {entry.term}" for entry in glossary.entries()} <= names
    for name in ("run: alpha", "chat: alpha",
                 "model: starter", "preset: starter", "setting: theme", "runs: delete",
                 "setup: start", "run: stop and save", "chat: retry", "plot: log scale",
                 "data: count all"):  # fmt: skip
        assert name in names


def test_every_workbench_setting_has_a_field() -> None:
    assert settings_place._FIELDS.keys() == settings.Settings.model_fields.keys()


def shown_page(app: Workbench) -> str | None:
    option = app.screen.query_one(OptionList).highlighted_option
    return option.id if option else None


@pytest.mark.parametrize(
    ("typed", "reached"),
    [
        ("setting: adapter.rank", lambda app: app.focused is not None and "rank" in str(app.focused.parent.id)),
        ("run: alpha", lambda app: app.current_mode == "run" and app.run_name == "alpha"),
        ("model: google/gemma-2b-it", lambda app: app.draft.model.id == "google/gemma-2b-it"),
        ("preset: guanaco-7b", lambda app: app.draft_source == "preset guanaco-7b"),
        ("manual: memory", lambda app: isinstance(app.screen, Manual) and shown_page(app) == "memory"),
        ("term: NF4", lambda app: isinstance(app.screen, Glossary)),
        ("setting: refresh_hz", lambda app: app.focused is not None and app.focused.id == "refresh-hz"),
        ("setting: animation", lambda app: app.focused is not None and app.focused.id == "animation"),
        ("setting: theme", lambda app: app.focused is not None and app.focused.id == "themes"),
        ("setting: keymap", lambda app: app.focused is not None and app.focused.id == "key-table"),
        ("theme: paper", lambda app: app.theme == "paper" == settings.load().theme),
        ("runs: filter", lambda app: app.current_mode == "runs" and isinstance(app.focused, Input)),
    ],
)  # fmt: skip
async def test_palette_entry_opens_its_target(typed: str, reached: object, settle: Settle) -> None:
    written("alpha", [*beginning(), *training(50), finished()])
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        [one] = [one for one in palette.everything("settings", app.available_themes) if one.name == typed]
        app.run_worker(one.act(app))
        await until(pilot, lambda: reached(app))  # type: ignore[operator]
