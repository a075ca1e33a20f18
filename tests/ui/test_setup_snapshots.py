"""What Setup looks like, at the smallest and at a large size, in a dark and in a light theme."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from setup_material import give, machine, priced, setup, until
from textual.pilot import Pilot
from textual.widgets import DataTable

from qlora_tui import settings
from qlora_tui.config.overrides import resolve
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.widgets.pricer import Pricer

SIZES = [(80, 24), (160, 45)]
THEMES = ["ember", "paper"]
Before = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 12 GiB, 11 of them free."""
    give(monkeypatch, machine(11))


def workbench(theme: str, *overrides: str) -> Workbench:
    settings.save(Settings(theme=theme))
    app = Workbench(place="setup")
    app.draft = resolve(overrides=overrides)
    return app


def shown(app: Workbench, section: str) -> Before:
    """Goes to a section, and waits until everything about it is known."""

    async def before(pilot: Pilot[None]) -> None:
        await priced(pilot, app)
        await until(pilot, lambda: setup(app).query_one(DataTable).row_count > 100)
        if section != "model":
            setup(app).action_open(section)
        pricer = setup(app).query_one(Pricer)
        await until(pilot, lambda: not any(one.node is pricer and not one.is_finished for one in app.workers))

    return before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_models(snap_compare: Any, theme: str, size: tuple[int, int]) -> None:
    """You should see the starter chosen, other models with what they take and whether they fit, and the memory bar."""
    app = workbench(theme)
    assert snap_compare(app, terminal_size=size, run_before=shown(app, "model"))


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_adapter_of_a_model_that_does_not_fit(snap_compare: Any, theme: str, size: tuple[int, int]) -> None:
    """You should see DOES NOT FIT with a bar that runs over its end, advice, and what each setting costs."""
    app = workbench(
        theme, "model.id=meta-llama/Llama-3.1-8B", "training.micro_batch_size=16", "training.max_length_tokens=4096"
    )
    assert snap_compare(app, terminal_size=size, run_before=shown(app, "adapter"))
