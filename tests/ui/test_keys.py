"""Every displayed key works: for each focusable widget, in each place and each dialog."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from run_material import beginning, finished, training, written
from run_screen import until
from screen_material import Settle, words
from textual import events
from textual.dom import DOMNode
from textual.keys import key_to_character
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Button, Input, OptionList, Select, Static

from qlora_tui import settings
from qlora_tui.settings import Settings
from qlora_tui.ui import keys
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.commands import declared
from qlora_tui.ui.screens.choose_theme import ChooseTheme
from qlora_tui.ui.screens.compare import Compare
from qlora_tui.ui.screens.glossary import Glossary
from qlora_tui.ui.screens.manual import Manual
from qlora_tui.ui.screens.setup_dialogs import Beginning, LoadDraft, SavePreset, ShowCommand
from qlora_tui.ui.widgets.ask_text import AskText
from qlora_tui.ui.widgets.confirm import Confirm
from qlora_tui.ui.widgets.places_bar import PLACES
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.resume_options import Option, ResumeOptions
from qlora_tui.ui.widgets.slider import Slider
from qlora_tui.ui.widgets.transcript_list import TranscriptList

APP_KEYS = {
    key: binding.action
    for binding in declared(Workbench)
    if binding.id
    for key in keys.named(binding.key)
    if not keys.is_text(key)
}

DIALOGS: dict[str, Callable[[], Screen[Any]]] = {
    "confirm": lambda: Confirm("Sure?", "All of it."),
    "text": lambda: AskText("Name?", "one", str),
    "glossary": Glossary,
    "manual": Manual,
    "theme": lambda: ChooseTheme("ember"),
    "load": lambda: LoadDraft([Beginning("preset", "starter", "the starter")]),
    "save": lambda: SavePreset("mine", lambda name: "", lambda name: False),
    "command": lambda: ShowCommand(["qlora-tui train"], "# nothing"),
    "resume": lambda: ResumeOptions("one", [Option("retry", "Try again", "about it", True)]),
    "transcripts": lambda: TranscriptList([]),
    "compare": lambda: Compare(["alpha", "beta"]),
}
OPENING = {
    **{name: [] for name, _, _ in PLACES},
    "setup-adapter": ["a"],
    "setup-data": ["d"],
    "setup-training": ["t"],
    "settings-keys": ["right_square_bracket"],
    "settings-folders": ["right_square_bracket"] * 2,
    "chat-list": [],
    "chat-panel": ["f8"],
    "runs-filter": ["slash"],
}
"""States of the places, by the keys that open them."""


@pytest.fixture(autouse=True)
def two_runs(machine: object) -> None:
    written("alpha", [*beginning(), *training(50)], stdio="one\ntwo\n")
    written("beta", [*beginning(), *training(100), finished()]).adapter.mkdir()


async def opened(app: Workbench, pilot: Pilot[None], state: str, settle: Settle) -> None:
    """Bring a state on the screen."""
    if state in DIALOGS:
        app.push_screen(DIALOGS[state]())
    await settle(pilot)
    if state == "chat-list":
        await until(pilot, lambda: app.screen.query_one("#chat-run", Select).value == "beta")
        app.screen.query_one("#chat-run", Select).expanded = True
    if state == "run":
        await until(pilot, lambda: app.screen.query(".-drawn"))
    if state == "settings-keys":
        await until(pilot, lambda: app.screen.query_one("#key-table").row_count)  # type: ignore[attr-defined]
    for key in OPENING.get(state, []):
        await pilot.press(key)
        await settle(pilot)
    await settle(pilot)


@pytest.mark.parametrize("size", [pytest.param((160, 45), marks=pytest.mark.long), (80, 24)], ids=str)
@pytest.mark.parametrize("state", [*OPENING, *DIALOGS])
async def test_every_key_works_where_it_is_offered(
    state: str, size: tuple[int, int], settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actions are recorded instead of run. A key handled by the focused widget is not offered by other widgets."""
    app = Workbench(place="runs" if state in DIALOGS else state.partition("-")[0])
    async with app.run_test(size=size) as pilot:
        await opened(app, pilot, state, settle)
        done: list[str] = []

        async def note(action: str, namespace: DOMNode, **_: object) -> bool:
            if app._check_action_state(action, namespace):
                done.append(action)
                return True
            return False

        monkeypatch.setattr(app, "run_action", note)
        screen = app.screen
        offered = set(APP_KEYS)
        chain = [app.focused] if state == "chat-list" else [None, *screen.focus_chain]
        assert any(chain)
        for widget in chain:
            screen.set_focus(widget)
            expected = APP_KEYS | {
                key: active.binding.action
                for key, active in screen.active_bindings.items()
                if active.enabled and active.binding.id in keys.bindings()
            }
            done.clear()
            await press_all(pilot, expected, done)
            assert sorted(done) == sorted(expected.values()), widget
            assert screen.focused is widget
            topics = {binding.id.partition(".")[0] for node, bindings in screen._modal_binding_chain if node is not app
                      for _, binding in bindings if binding.id in keys.bindings()}  # fmt: skip
            assert len(topics) < 2 or any(topics <= group for group in keys.TOGETHER), topics
            offered |= {key for _, bindings in screen._binding_chain for key in bindings.key_to_bindings}
        assert advertised(chain, screen) <= offered


def advertised(chain: list[Widget | None], screen: Screen[Any]) -> set[str]:
    """The keys that the helps for these widgets, and the buttons of a screen, name."""
    nodes = {node for widget in chain if widget is not None for node in widget.ancestors_with_self}
    helps = [node.HELP for node in nodes if isinstance(vars(type(node)).get("HELP"), str) and node.HELP]
    named = re.findall(r"`([^`]+)`|\*\*([^*]+)\*\*", "\n".join(helps))
    named += [
        (key, "")
        for button in screen.query(Button)
        if button in chain
        for key in re.findall(r"\((\w+)\)", str(button.label))
    ]
    found = {keys.named((code or bold).lower())[0] for code, bold in named}
    return {key for key in found if re.fullmatch(r"(ctrl|shift)\+\w+|f\d+|\w|slash|plus|minus|escape|enter|space", key)}


async def press_all(pilot: Pilot[None], wanted: Collection[str], done: Sequence[str]) -> None:
    """Type keys without a pause, and wait until each was used."""
    for key in wanted:
        pilot.app.post_message(events.Key(key, key_to_character(key)))
    await until(pilot, lambda: len(done) >= len(wanted))


@pytest.mark.parametrize("state", ["setup", "runs", "glossary"])
async def test_what_is_typed_right_after_a_key_that_searches_is_searched(state: str, settle: Settle) -> None:
    """With fast typing on a slow connection, letters arrive before the focus has moved."""
    app = Workbench(place="settings" if state == "glossary" else state)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, state, settle)
        for key in (*([] if state == "glossary" else ["slash"]), *"gemma"):
            app.post_message(events.Key(key, key_to_character(key)))
        fields = {"setup": "#model-search", "runs": "#run-filter", "glossary": "#term-filter"}
        await until(pilot, lambda: app.screen.query_one(fields[state], Input).value == "gemma")
        assert app.focused is app.screen.query_one(fields[state])


@pytest.mark.parametrize(
    ("place", "typed", "field"),
    [
        ("setup", ["slash"], "#model-search"),
        ("home", ["f3", "slash"], "#model-search"),
        ("settings", ["f10"], "#term-filter"),
    ],
)
async def test_text_typed_ahead_of_an_opening_screen_is_kept(place: str, typed: list[str], field: str) -> None:
    """Nothing is waited for: the place, its list or the dialog is still loading."""
    app = Workbench(place=place)
    async with app.run_test(size=(80, 24)) as pilot:
        for key in (*typed, *"gemma"):
            app.post_message(events.Key(key, key_to_character(key)))
        await until(pilot, lambda: app.screen.query(field) and app.screen.query_one(field, Input).value == "gemma")
        assert app.focused is app.screen.query_one(field)


async def test_the_glossary_is_searched_by_typing_and_moved_through_by_arrows(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("f10", *"quant", "down")
        await pilot.pause()
        terms = app.screen.query_one("#terms", OptionList)
        assert terms.highlighted == 1 and terms.option_count < 12
        assert str(terms.get_option_at_index(1).prompt) in str(app.screen.query_one("#meaning", Static).visual)
        await pilot.press("f10")
        assert not isinstance(app.screen, Glossary)


@pytest.mark.parametrize(("key", "place"), [(key, name) for name, _, key in PLACES])
async def test_the_key_of_a_place_works_in_the_prompt_and_through_a_dialog(
    key: str, place: str, settle: Settle
) -> None:
    answers: list[bool | None] = []
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert isinstance(app.focused, Prompt)
        app.push_screen(Confirm("Sure?"), answers.append)
        await pilot.pause()
        await pilot.press(key)
        await until(pilot, lambda: app.current_mode == place and not isinstance(app.screen, Confirm))
        assert answers == [None]
        app.switch_mode("chat")
        await settle(pilot)
        await pilot.press("h", "i", key)
        assert app.current_mode == place


async def test_ctrl_q_leaves_from_a_dialog(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(AskText("Name?", "one", str))
        await pilot.pause()
        await pilot.press("q")
        assert app.screen.query_one(Input).value.endswith("q")
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app._exit)


async def test_q_and_the_question_mark_work_at_home_and_elsewhere(settle: Settle) -> None:
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("q")
        await settle(pilot)
        assert app.current_mode == "home"
        await pilot.press("question_mark")
        await pilot.pause()
        assert app.screen.query("HelpPanel")
        await pilot.press("question_mark", "q")
        await until(pilot, lambda: app._exit)


async def test_a_number_is_typed_on_a_slider(settle: Settle) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(pilot)
        slider = app.screen.query_one("#sampling-top_k", Slider)
        slider.focus()
        await pilot.press("1", "2", "0", "5", "backspace")
        assert (slider.value, "120_" in words(app)) == (0, True)
        await pilot.press("enter")
        assert (slider.value, app.current_mode) == (120, "chat")
        await pilot.press("9", "escape")
        assert (slider.value, slider.has_focus, slider.typed) == (120, True, "")
        await pilot.press("9", "9", "9", "tab")
        await pilot.pause()
        assert slider.value == 200, "the nearest number on the slider"


@pytest.mark.parametrize(
    ("action", "key", "said"),
    [
        ("chat.retry", "x", "x types text in an editor"),
        ("workbench.runs", "9", "9 types text in an editor"),
        ("prompt.send", "x", "x types text in an editor"),
        ("chat.retry", "enter", "enter is reserved for navigation, editing and dialogs"),
        ("setup.adapter", "shift+left", "is reserved"),
        ("chat.retry", "ctrl+j", "ctrl+j is already the key of prompt.new-line"),
        ("chat.retry", "ctrl+g", "ctrl+g is already the key of chat.copy"),
        ("workbench.runs", "f8", "f8 is already the key of"),
        ("setup.adapter", "slash", "slash is already the key of models.search"),
        ("chat.retry", "ctrl+e", None),
        ("chat.retry", "f6", "f6 is already the key of workbench.chat"),
        ("chat.retry", "ctrl+s", None),
        ("setup.adapter", "w", None),
        ("chat.retry", "ctrl+r", None),
        ("runs.delete", "d", None),
    ],
)
def test_a_key_that_would_not_work_everywhere_is_refused(action: str, key: str, said: str | None) -> None:
    reason = keys.refusal(action, key, {})
    assert reason is None if said is None else said in (reason or "")


async def test_a_chosen_key_comes_before_the_key_of_the_editor(settle: Settle) -> None:
    """Ctrl+E moves to the end of the line in Textual's editor; here it is bound to the help of the chat panel."""
    settings.save(Settings(keymap={"chat.panel": "ctrl+e", "workbench.runs": "ctrl+a"}))
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+e")
        await pilot.pause()
        assert app.screen.has_class("-panel")
        await pilot.press("escape", "h", "ctrl+a")
        assert app.current_mode == "runs"


async def test_unusable_keys_of_the_settings_file_are_reported_and_ignored(settle: Settle) -> None:
    keymap = {"chat.retry": "x", "no.such": "f8", "workbench.runs": "f5,ctrl+d", "chat.copy": "enter"}
    settings.save(Settings(keymap=keymap))
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: len(app._notifications))
        [toast] = app._notifications
        for said in (
            "chat.retry: x types text",
            "no.such: unknown action",
            "chat.copy: enter is reserved",
            "settings.toml",
        ):
            assert said in toast.message
        assert app._keymap == {"workbench.runs": "f5,ctrl+d"}


def test_ids_active_together_are_recognized() -> None:
    known = {topic for group in keys.TOGETHER for topic in group}
    alone = {"workbench", "ask", "command", "confirm", "resume", "save", "transcripts"}
    assert {name.partition(".")[0] for name in keys.bindings()} == known | alone


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 45)])
async def test_what_is_typed_in_chat_can_be_seen(size: tuple[int, int], settle: Settle) -> None:
    """In a narrow terminal the settings hide the question."""
    app = Workbench(place="chat")
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for toggles in (1, 2, 3):
            for key in ("f8",) * toggles:
                await pilot.press(key)
                await pilot.pause()
                assert_focus_is_seen(app)
            await pilot.press("escape")
            await pilot.pause()
            await pilot.press("h", "i")
            prompt = app.screen.query_one(Prompt)
            assert (app.focused, prompt.text) == (prompt, "hi")
            assert_focus_is_seen(app)
            prompt.clear()


async def test_an_editor_that_is_hidden_loses_the_focus(settle: Settle) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        app.screen.add_class("-panel")
        await pilot.pause()
        app.screen.query_one(Prompt).focus()
        await pilot.pause()
        await pilot.press("h", "enter")
        assert_focus_is_seen(app)
        assert app.screen.query_one(Prompt).text == ""


def assert_focus_is_seen(app: Workbench) -> None:
    focused = app.focused
    assert focused is None or (all(node.display for node in focused.ancestors_with_self) and focused.region)
