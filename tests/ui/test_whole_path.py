"""From Home to an answer, with nothing but the keyboard and with nothing but the mouse."""

from collections.abc import Callable

import pytest
from command_line import fake_worker
from run_screen import until
from setup_material import give, machine, priced
from test_chat_place import answers, parrot
from textual import events
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets._footer import FooterKey

from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.chat import ChatPlace
from qlora_tui.ui.screens.run import RunPlace
from qlora_tui.ui.widgets.prompt import Prompt

__all__ = ["fake_worker", "parrot"]
Behave = Callable[[str], None]
SIZES = pytest.mark.parametrize("size", [(80, 24), (160, 45)])


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(ram_gib=64))


def in_footer(app: Workbench, action: str) -> FooterKey | None:
    """The key of an action in the footer, if it can be clicked."""
    found = [key for key in app.screen.query(FooterKey) if key.action.rpartition(".")[2] == action]
    return next((key for key in found if key.region and key.region in app.screen.region), None)


async def click(pilot: Pilot[None], app: Workbench, find: Callable[[], Widget | None]) -> None:
    """Click a thing once it is there."""
    await until(pilot, lambda: find() is not None)
    thing = find()
    assert thing is not None
    await pilot.click(offset=thing.region.offset)


async def click_key(pilot: Pilot[None], app: Workbench, action: str) -> None:
    """Click a key in the footer once it is there."""
    await click(pilot, app, lambda: in_footer(app, action))


def is_finished(app: Workbench) -> bool:
    """Whether the Run place shows a run that has ended well."""
    screen = app.screen
    return isinstance(screen, RunPlace) and screen.view is not None and screen.view.status == "finished"


def answered(app: Workbench) -> list[str]:
    """The answers in the Chat place."""
    return answers(app.screen) if isinstance(app.screen, ChatPlace) and not app.screen.is_answering else []


@SIZES
async def test_by_keyboard_alone(fake_worker: Behave, size: tuple[int, int]) -> None:
    app = Workbench()
    async with app.run_test(size=size) as pilot:
        await pilot.press("n")
        await priced(pilot, app)
        await pilot.press("f9")
        await until(pilot, lambda: is_finished(app))
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.focused, Prompt))
        await pilot.press("w", "h", "o", "enter")
        await until(pilot, lambda: answered(app) == ["WHO"])


@SIZES
async def test_by_mouse_alone(fake_worker: Behave, size: tuple[int, int]) -> None:
    """The words of the question come from the clipboard of the terminal."""
    app = Workbench()
    async with app.run_test(size=size) as pilot:
        await pilot.click("#place-setup")
        await priced(pilot, app)
        await click_key(pilot, app, "start")
        await until(pilot, lambda: is_finished(app))
        await click_key(pilot, app, "chat")
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.session is not None)
        await pilot.click("#chat-prompt")
        app.post_message(events.Paste("who"))
        await click_key(pilot, app, "send")
        await until(pilot, lambda: answered(app) == ["WHO"])
