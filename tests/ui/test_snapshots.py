"""What the places of the frame look like, at the smallest and at a large size, in a dark and a light theme.

The pictures are SVG files in `__snapshots__`; `pytest tests/ui/test_snapshots.py --snapshot-update` draws them again,
and whoever does so looks at them.
"""

from collections.abc import Callable
from typing import Any

import pytest
from run_material import beginning, finished, training, written
from screen_material import Settle
from textual.pilot import Pilot

from qlora_tui import settings
from qlora_tui.runs import events, labels
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens import settings as settings_screen

SIZES = [pytest.param((80, 24), id="80x24"), pytest.param((160, 45), id="160x45")]
THEMES = ["ember", "paper"]
Compare = Callable[..., bool]
pytestmark = [
    pytest.mark.usefixtures("machine"),
    pytest.mark.parametrize("size", SIZES),
    pytest.mark.parametrize("theme", THEMES),
]


@pytest.fixture
def runs() -> None:
    """A finished, a failed and a crashed run."""
    written("first", [*beginning(), *training(), finished()])
    written("second", [*beginning(), *training(50), events.Failed(message="row 7 has no answer", hint="Fix it.")])
    crashed = written("third", [*beginning(), *training(120)])
    labels.set_tags(crashed, ["long", "rank16"])


@pytest.fixture
def shows(snap_compare: Compare, settle: Settle) -> Callable[..., bool]:
    """Whether a place looks as it did, after some keys."""

    def compare(place: str, theme: str, size: tuple[int, int], *keys: str) -> bool:
        settings.save(Settings(theme=theme))

        async def before(pilot: Pilot[Any]) -> None:
            await settle(pilot)
            await pilot.press(*keys)
            await settle(pilot)

        return snap_compare(Workbench(place=place), terminal_size=size, run_before=before)

    return compare


def test_first_start(shows: Callable[..., bool], theme: str, size: tuple[int, int]) -> None:
    """You should see a welcome, a focused button that starts the starter demo, and a machine without a GPU."""
    assert shows("home", theme, size)


@pytest.mark.usefixtures("runs")
def test_home(shows: Callable[..., bool], theme: str, size: tuple[int, int]) -> None:
    """You should see the next step, the machine, and a card with a falling curve for each of three runs.

    At 160 columns the cards stand in two columns to the right of the machine.
    """
    assert shows("home", theme, size)


@pytest.mark.usefixtures("runs")
def test_runs(shows: Callable[..., bool], theme: str, size: tuple[int, int]) -> None:
    """You should see three runs, one of them crashed and one failed, two marked, and a line that says so."""
    assert shows("runs", theme, size, "space", "j", "space")


def test_settings(shows: Callable[..., bool], theme: str, size: tuple[int, int]) -> None:
    """You should see the list of themes, focused, with a dot at the kept one, and below or beside it the pace."""
    assert shows("settings", theme, size)


def test_keys(shows: Callable[..., bool], theme: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """You should see a table of keys, ids and what they do."""
    few = {name: binding for name, binding in settings_screen.keys.bindings().items() if name.startswith("workbench")}
    monkeypatch.setattr(settings_screen.keys, "bindings", lambda: few)
    assert shows("settings", theme, size, "right_square_bracket")


def test_glossary(shows: Callable[..., bool], theme: str, size: tuple[int, int]) -> None:
    """You should see the glossary over Home, its terms on the left and the first one's meaning on the right."""
    assert shows("home", theme, size, "f10")
