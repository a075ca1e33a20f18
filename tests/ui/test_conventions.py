"""What holds for every place: keys with ids and tooltips that the palette knows, help for every panel."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from screen_material import Settle
from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList

from qlora_tui.config.fields import fields
from qlora_tui.ui import glossary, keys
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.commands import commands, declared
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.places_bar import PLACES
from qlora_tui.ui.widgets.setting_field import SettingField

CLASSES = keys.classes()
NEVER = {"torch", "transformers", "datasets", "peft", "trl", "bitsandbytes", "accelerate"}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_key_has_an_id_a_description_and_a_tooltip(kind: type[DOMNode]) -> None:
    for binding in own(kind):
        assert binding.id, f"{kind.__name__}: {binding.key}"
        assert binding.tooltip, binding.id
        assert binding.description, binding.id


def own(kind: type[DOMNode]) -> list[Binding]:
    """The bindings that a class itself declares."""
    return list(Binding.make_bindings(vars(kind).get("BINDINGS", ())))


def test_an_id_means_one_thing() -> None:
    actions: dict[str, set[str]] = {}
    for kind in CLASSES:
        for binding in own(kind):
            actions.setdefault(binding.id or "", set()).add(binding.action)
    assert {name: found for name, found in actions.items() if len(found) > 1} == {}


def test_no_place_takes_a_key_of_the_app() -> None:
    everywhere = {binding.key for binding in declared(Workbench) if binding.id}
    for kind in CLASSES:
        if not issubclass(kind, ModalScreen | App):
            taken = {binding.key: binding.id for binding in own(kind) if binding.key in everywhere}  # type: ignore[attr-defined]
            assert taken == {}, kind.__name__


@pytest.mark.parametrize("place", [name for name, _, _ in PLACES])
async def test_the_palette_knows_every_key_of_a_place(place: str, settle: Settle, machine: object) -> None:
    app = Workbench(place=place)
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(pilot)
        offered = {command.binding.id for command in commands(app.screen)}
        missing = {
            binding.id
            for node in (app, app.screen)
            for binding in declared(type(node))
            if binding.id and node.check_action(binding.action.partition("(")[0], ()) is not False
        } - offered
        assert missing <= {"workbench.palette"}


def test_each_place_explains_itself() -> None:
    places = {kind.NAME: kind.HELP for kind in CLASSES if issubclass(kind, Place) and kind.NAME}
    assert places.keys() == {name for name, _, _ in PLACES}
    assert [name for name, text in places.items() if not text] == []


def test_the_glossary_has_a_term_for_every_setting() -> None:
    named = {key for entry in glossary.entries() for key in entry.keys}
    assert named == set(fields())
    assert "Paged optimizer" in glossary.help_of("training.optimizer")


async def test_the_glossary_opens_at_the_terms_of_the_focused_panel(settle: Settle, machine: object) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("tab", "f10")
        await pilot.pause()
        first = app.screen.query_one("#terms").highlighted_option  # type: ignore[attr-defined]
        assert first.id == "VRAM"
        app.screen.query_one(Input).value = "paged"
        await pilot.pause()
        assert "RAM page by page" in str(app.screen.query_one("#meaning").visual)  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert app.current_mode == "home"
        assert len(app.screen_stack) == 1


async def test_one_key_leads_from_a_field_to_its_terms(settle: Settle, machine: object) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for key, terms in {
            "quantization.kind": {"NF4", "FP4", "8-bit", "Quantization"},
            "quantization.double_quantization": {"Double quantization"},
            "adapter.rank": {"Rank"},
            "training.optimizer": {"Optimizer", "Paged optimizer"},
        }.items():
            field = SettingField(key)
            await app.screen.mount(field)
            field.query("Input, Select, Checkbox").first().focus()
            await pilot.press("f10")
            await pilot.pause()
            options = app.screen.query_one(OptionList).options
            assert {option.id for option in options[: len(terms)]} == terms
            await pilot.press("escape")
            assert app.focused is not None and app.focused.parent is field


async def test_moving_the_focus_styles_the_field_again_and_not_the_place(
    machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    styled: list[DOMNode] = []
    app = Workbench(place="setup")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("t")
        await pilot.pause()
        monkeypatch.setattr(
            app.stylesheet, "update_nodes", lambda nodes, animate=False: styled.extend(nodes), raising=True
        )
        app.screen.focus_next()
        assert 0 < len(styled) < 40, "a rule with :focus-within on a large container styles all that is in it"


async def test_help_is_that_of_the_focused_panel(settle: Settle, machine: object) -> None:
    app = Workbench()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("tab", "f1")
        await settle(pilot)
        panel = app.screen.query_one("HelpPanel")
        assert "This machine" in str(panel.query_one("Markdown").source)  # type: ignore[attr-defined]
        await pilot.press("f1")
        await pilot.pause()
        assert not app.screen.query("HelpPanel")


@pytest.mark.parametrize("size", [(80, 24), (160, 45), (40, 12)])
async def test_every_place_survives_any_size_and_no_colour(
    size: tuple[int, int], settle: Settle, machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = Workbench()
    async with app.run_test(size=size) as pilot:
        for _, _, key in PLACES:
            await pilot.press(key)
            await pilot.pause()
            await pilot.resize_terminal(size[0] + 37, size[1] + 5)
            await pilot.resize_terminal(*size)


def test_the_screen_never_loads_the_torch_stack(tmp_path: Path) -> None:
    """A clean interpreter goes through all places, starts runs, and tells what it has loaded."""
    program = f"""
import asyncio, json, sys
from qlora_tui.config.overrides import resolve
from qlora_tui.runs import jobs
from qlora_tui.ui.app import Workbench

jobs.WORKER = "fake_worker"
first = []

async def walk():
    app = Workbench()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        async def until(condition):
            while not condition():
                await pilot.pause(0.02)

        first.extend({NEVER!r} & sys.modules.keys())
        for key in {[key for _, _, key in PLACES]!r}:
            await pilot.press(key)
            await until(lambda: app.screen.is_mounted)
        await pilot.press("f1", "f10", "escape", "f3")
        app.draft = resolve(overrides=["data.source=some/rows"])
        await pilot.press("f9")
        await until(lambda: any("cannot be reached" in toast.message for toast in app._notifications))
        app.draft = resolve()
        await pilot.press("f9")
        await until(lambda: app.current_mode == "run" and app.screen.is_mounted)
        await pilot.press("f5", "f6")
        await until(lambda: app.screen.is_mounted)

asyncio.run(walk())
print(json.dumps([first, sorted({NEVER!r} & sys.modules.keys())]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "FAKE_WORKER": "finish"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[], []]


def test_nothing_of_the_screen_is_drawn_in_a_literal_colour() -> None:
    """Style sheets and styles take their colours from the theme."""
    folder = Path(__file__).parents[2] / "qlora_tui" / "ui"
    for sheet in folder.rglob("*.tcss"):
        assert "#0" not in sheet.read_text().replace("#0 ", "")
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not is_hex_colour(node.value), f"{path.name}:{node.lineno} {node.value}"


def is_hex_colour(text: str) -> bool:
    """Whether a text is a colour such as #aabbcc."""
    return len(text) == 7 and text[0] == "#" and all(letter in "0123456789abcdefABCDEF" for letter in text[1:])
