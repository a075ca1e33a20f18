"""The manual in the workbench."""

import pytest
from run_screen import until
from screen_material import Settle
from textual.pilot import Pilot
from textual.widgets import Markdown, OptionList

from qlora_tui import manual
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.manual import Manual, PageText

pytestmark = pytest.mark.usefixtures("machine")


def heading(pilot: Pilot[None]) -> str:
    """The first line of the page that is shown; empty before there is one."""
    return next((shown.source.partition("\n")[0] for shown in pilot.app.screen.query(Markdown)), "")


@pytest.mark.parametrize("key", ["shift+f1", "f13"])
async def test_key_opens_the_manual_and_the_list_shows_each_page(key: str, settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press(key)
        for page in manual.pages():
            await until(pilot, lambda title=page.title: heading(pilot) == f"# {title}")  # type: ignore[misc]
            for table in app.screen.query("MarkdownTable"):
                assert table.region.right <= app.screen.query_one(PageText).region.right
            await pilot.press("j")
        await pilot.press(key)
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_help_advertises_the_manual(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot)
        assert app.screen.active_bindings["shift+f1"].binding.description == "Manual"


async def test_link_opens_the_other_page(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        app.action_manual("quickstart")
        await until(pilot, lambda: isinstance(app.screen, Manual) and heading(pilot) != "")
        markdown = app.screen.query_one(Markdown)
        for href, page in (("memory.md#anchor", "memory"), ("https://example.com", "memory")):
            markdown.post_message(Markdown.LinkClicked(markdown, href))
            await until(
                pilot,
                lambda wanted=page: app.screen.query_one(OptionList).highlighted_option.id == wanted,  # type: ignore[misc]
            )


async def test_page_text_scrolls_by_keys(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        app.action_manual("configuration")
        await until(pilot, lambda: isinstance(app.screen, Manual) and heading(pilot) == "# Configuration reference")
        await pilot.press("enter")
        text = app.screen.query_one(PageText)
        await until(pilot, lambda: text.has_focus)
        await pilot.press("pagedown")
        await until(pilot, lambda: text.scroll_y > 0)
        await pilot.press("escape")
        assert len(app.screen_stack) == 1
