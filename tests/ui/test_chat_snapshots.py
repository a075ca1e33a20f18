"""What the Chat place looks like; see test_snapshots for how the pictures are drawn again."""

from collections.abc import Callable
from typing import Any

import pytest
from test_chat_place import parrot, run, until
from textual.pilot import Pilot

from qlora_tui import settings
from qlora_tui.runs.store import RunFolder
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import ChatRequested
from qlora_tui.ui.screens.chat import ChatPlace
from qlora_tui.ui.widgets.chat_choices import ChatChoices
from qlora_tui.ui.widgets.chat_turn import TurnView
from qlora_tui.ui.widgets.prompt import Prompt

__all__ = ["parrot", "run"]
Compare = Callable[..., bool]
pytestmark = [
    pytest.mark.usefixtures("machine"),
    pytest.mark.parametrize("size", [pytest.param((80, 24), id="80x24"), pytest.param((160, 45), id="160x45")]),
    pytest.mark.parametrize("theme", ["ember", "paper"]),
]
QUESTION = "# A list\n\n- one **word**\n- `code`\n\n```python\nprint(1)\n```"


def test_answer(snap_compare: Compare, run: RunFolder, theme: str, size: tuple[int, int]) -> None:
    """You should see a question and its answer as Markdown, what was loaded, and how fast it answered.

    At 160 columns base and adapter answer side by side, with the sampling settings to the right.
    """

    async def before(pilot: Pilot[Any]) -> None:
        pilot.app.post_message(ChatRequested("bird"))
        place = await _ready(pilot)
        if size[0] > 80:
            place.query_one(ChatChoices).next_side()
            await pilot.pause()
            place.query_one(ChatChoices).next_side()
        place.query_one(Prompt).cursor_blink = False
        place.query_one(Prompt).load_text(QUESTION)
        place.query_one(Prompt).focus()
        await pilot.press("enter")
        await until(pilot, lambda: bool(place.query(TurnView)) and not place.is_answering)
        await _still(pilot)

    assert _looks_the_same(snap_compare, theme, size, before)


def test_nothing_to_talk_to(snap_compare: Compare, theme: str, size: tuple[int, int]) -> None:
    """You should see an empty conversation and a line that says how to get an adapter."""

    async def before(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, ChatPlace) and bool(pilot.app.screen.status))
        pilot.app.screen.query_one(Prompt).cursor_blink = False
        await _still(pilot)

    assert _looks_the_same(snap_compare, theme, size, before, place="chat")


async def _ready(pilot: Pilot[Any]) -> ChatPlace:
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.session is not None)
    assert isinstance(app.screen, ChatPlace)
    return app.screen


async def _still(pilot: Pilot[Any]) -> None:
    """Markdown is laid out piece by piece."""
    before = ""
    while (now := pilot.app.export_screenshot(simplify=True)) != before:
        before = now
        await pilot.pause()
        await pilot.pause()


def _looks_the_same(snap_compare: Compare, theme: str, size: tuple[int, int], before: Any, place: str = "home") -> bool:
    settings.save(Settings(theme=theme))
    return snap_compare(Workbench(place=place), terminal_size=size, run_before=before)
