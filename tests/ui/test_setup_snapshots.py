"""What Setup looks like, at the smallest and at a large size, in a dark and in a light theme."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from setup_material import give, looked_into, machine, priced, setup, text, until
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

from qlora_tui import settings
from qlora_tui.config.overrides import resolve
from qlora_tui.settings import Settings
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.widgets.pricer import Pricer

SIZES = [(80, 24), (160, 45)]
THEMES = ["ember", "paper"]
ASKED = ["<|im_start|>", "user", "\n", "Name", " three", " primary", " colours", ".", "<|im_end|>", "\n"]
ANSWERED = ["<|im_start|>", "assistant", "\n", "Red", ",", " yellow", " and", " blue", ".", "<|im_end|>"]
SOURCE: dict[str, Any] = {
    "event": "source",
    "format": "prompt-completion",
    "confidence": 0.97,
    "used_columns": {"prompt": "instruction", "context": "input", "response": "output"},
    "evidence": ["columns are named instruction, input and output", "200 of 200 sampled rows have an answer"],
    "notes": [],
    "first_bad_rows": [],
    "columns": ["instruction", "input", "output", "text"],
}
SAMPLE: dict[str, Any] = {
    "event": "sample",
    "rows": [
        {
            "origin": "alpaca.parquet:1",
            "full_tokens": len(ASKED + ANSWERED),
            "cut_tokens": 0,
            "dropped": "",
            "untrained": [],
            "piece_count": 1,
            "pieces": [
                [{"text": one, "trained": False, "special": "<|" in one} for one in (*ASKED, *ANSWERED[:3])]
                + [{"text": one, "trained": True, "special": "<|" in one} for one in ANSWERED[3:]]
            ],
        }
    ],
}
ESTIMATE: dict[str, Any] = {
    "event": "estimate",
    "rows": 200,
    "epochs": {"total_steps": 13},
    "histogram": [
        {"from_tokens": 24 * number, "to_tokens": 24 * number + 23, "rows": rows}
        for number, rows in enumerate((18, 61, 74, 30, 12, 5))
    ],
    "tokens": 12_345,
    "trained_share": 0.52,
    "longest_origin": "alpaca.parquet:118",
    "longest_tokens": 141,
    "longer_share": 0.085,
    "max_length_tokens": 96,
    "flags": [],
    "warnings": [],
}
Before = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 12 GiB, 11 of them free."""
    give(monkeypatch, machine(11))


def workbench(theme: str, *overrides: str) -> Workbench:
    settings.save(Settings(theme=theme))
    app = Workbench(place="setup")
    app.draft, app.draft_source = resolve(overrides=overrides), "defaults"
    return app


def shown(app: Workbench, section: str) -> Before:
    """Goes to a section, and waits until everything about it is known."""

    async def before(pilot: Pilot[None]) -> None:
        await priced(pilot, app)
        await until(pilot, lambda: setup(app).query_one(DataTable).row_count > 100)
        if section != "model":
            setup(app).action_open(section)
        pricer = setup(app).query_one(Pricer)
        await until(pilot, lambda: "could not be measured" in text(app, "#fit-work"))
        await until(pilot, lambda: not any(one.node is pricer and not one.is_finished for one in app.workers))
        if section == "model":
            table = setup(app).query_one(DataTable)
            await until(pilot, lambda: str(table.get_row_at(table.row_count - 1)[1]) != "·")
        for line in setup(app).query(Input):
            line.cursor_blink = False

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
def test_data(snap_compare: Any, monkeypatch: pytest.MonkeyPatch, theme: str, size: tuple[int, int]) -> None:
    """You should see the format and why, a row with a bright answer and dim question, and lengths with a cut line.

    At 80 columns the lengths are further down.
    """
    looked_into(monkeypatch, SOURCE, SAMPLE, ESTIMATE)
    app = workbench(theme, "training.max_length_tokens=96", "data.source=alpaca")
    section = shown(app, "data")

    async def before(pilot: Pilot[None]) -> None:
        await section(pilot)
        await until(pilot, lambda: "first 200 rows" in text(app, "#data-stage"))

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_training(snap_compare: Any, theme: str, size: tuple[int, int]) -> None:
    """You should see the run's name, the settings that matter first with what they cost, and two marked ones."""
    app = workbench(theme, "training.warmup_ratio=0.1")
    section = shown(app, "training")

    async def before(pilot: Pilot[None]) -> None:
        await section(pilot)
        setup(app).edit({"training.epochs": "many"})
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_adapter_of_a_model_that_does_not_fit(snap_compare: Any, theme: str, size: tuple[int, int]) -> None:
    """You should see DOES NOT FIT with a bar that runs over its end, advice, and what each setting costs."""
    app = workbench(
        theme, "model.id=meta-llama/Llama-3.1-8B", "training.micro_batch_size=16", "training.max_length_tokens=4096"
    )
    assert snap_compare(app, terminal_size=size, run_before=shown(app, "adapter"))
