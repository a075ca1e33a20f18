"""What the tests of Setup share: a machine that is always the same, and waiting for what the screen shows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from run_screen import GIB, until
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Static

from qlora_tui import hardware
from qlora_tui.hardware import Gpu, Machine
from qlora_tui.models import catalogue
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.setup import SetupPlace
from qlora_tui.ui.widgets import data_section


def machine(*cards_gib: float, ram_gib: float = 16) -> Machine:
    """A machine with cards of so many free GiB."""
    gpus = tuple(
        Gpu(
            index=number,
            name=f"Card {number}",
            uuid=f"GPU-{number}",
            total_bytes=int((free + 1) * GIB),
            free_bytes=int(free * GIB),
            compute_capability=(8, 6),
            utilization_percent=0,
            temperature_c=40,
            power_w=30.0,
        )
        for number, free in enumerate(cards_gib)
    )
    return Machine(gpus, "550.54" if gpus else None, 8, 5.0, int(ram_gib * 1.5 * GIB), int(ram_gib * GIB))


def give(monkeypatch: pytest.MonkeyPatch, present: Machine) -> None:
    """Make this the machine that the program sees."""
    monkeypatch.setattr(hardware, "snapshot", lambda: present)
    monkeypatch.setattr(hardware, "cpu_has_native_bf16", lambda: False)


FEW_MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-405B",
    "Qwen/Qwen3-0.6B",
)


def know_few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the well-known models list a few: each one is described and priced whenever Setup is shown."""
    monkeypatch.setattr(catalogue, "ids", lambda: FEW_MODELS)


def looked_into(monkeypatch: pytest.MonkeyPatch, *events: dict[str, Any]) -> None:
    """Let every look into data say this, without a child that reads."""

    class Said:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        async def events(self) -> AsyncIterator[dict[str, Any]]:
            for event in events:
                yield event

    monkeypatch.setattr(data_section, "Inspection", Said)


def setup(app: Workbench) -> SetupPlace:
    return next(screen for screen in app.screen_stack if isinstance(screen, SetupPlace))


def text(app: Workbench, selector: str) -> str:
    """What a Static of Setup shows."""
    content = setup(app).query_one(selector, Static).content
    return content.plain if isinstance(content, Content) else str(content)


async def priced(pilot: Pilot[None], app: Workbench) -> None:
    """Setup is shown, and what the draft needs is known."""
    await until(pilot, lambda: isinstance(app.screen, SetupPlace) and app.screen.is_mounted)
    await until(pilot, lambda: price_of(app) is not None and price_of(app).config == app.draft)


def price_of(app: Workbench) -> Any:
    """What the draft needs; None while that is not known."""
    return setup(app).price
