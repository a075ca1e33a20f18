"""Talking to a run on the screen, with a chat process that needs no torch."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from screen_material import words
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Markdown, Select, Static

from qlora_tui import hardware
from qlora_tui.chat import client, transcript
from qlora_tui.config.overrides import resolve
from qlora_tui.hardware import Gpu, Machine
from qlora_tui.runs import checkpoints, jobs, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.events import Resolved
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui import starting
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import ChatRequested, StartRequested
from qlora_tui.ui.screens.chat import ChatPlace
from qlora_tui.ui.widgets.chat_turn import TurnView
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.slider import Slider


@pytest.fixture(autouse=True)
def parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PROCESS", "fake_chat")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
def run() -> RunFolder:
    folder = store.create("bird", resolve("starter"), {})
    folder.adapter.mkdir()
    return folder


@asynccontextmanager
async def chatting(size: tuple[int, int] = (160, 45)) -> AsyncIterator[tuple[Pilot[None], ChatPlace]]:
    """The workbench in its Chat place, the run called bird loaded."""
    app = Workbench()
    async with app.run_test(size=size) as pilot:
        app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.session is not None)
        assert isinstance(app.screen, ChatPlace)
        yield pilot, app.screen


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app go on until something holds; the time limit of the test ends it otherwise."""
    while not condition():
        await pilot.pause(0.01)


async def ask(pilot: Pilot[None], place: ChatPlace, text: str) -> None:
    await type_question(pilot, text)
    await until(pilot, lambda: bool(place.query(TurnView)) and not place.is_answering)
    await pilot.pause()


async def type_question(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*("space" if letter == " " else letter for letter in text), "enter")


def answers(place: ChatPlace) -> list[str]:
    return [view.source for view in place.query(Markdown)]


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_a_question_is_answered_and_kept_in_the_run(run: RunFolder, size: tuple[int, int]) -> None:
    async with chatting(size) as (pilot, place):
        await ask(pilot, place, "who is ada")
        assert answers(place) == ["WHO IS ADA"]
        assert "3 tokens at 10 tokens/s" in str(place.query(".answer-facts").only_one(Static).content)
        assert "context 8 of 128 tokens" in place.status
    [path] = run.chats.glob("*.json")
    assert json.loads(path.read_text())["turns"][0]["answers"]["adapter"]["text"] == "WHO IS ADA"


async def test_the_newest_run_is_loaded_by_the_first_question(run: RunFolder) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and "bird is loaded when" in app.screen.status)
        assert isinstance(app.screen, ChatPlace)
        await ask(pilot, app.screen, "hi")
        assert answers(app.screen) == ["HI"]


async def test_status_shows_the_waiting_question_while_the_model_loads(run: RunFolder) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.wanted is not None)
        place = app.screen
        assert isinstance(place, ChatPlace)
        shown: list[str] = []
        place.watch(place, "status", lambda status: shown.append(status), init=False)
        await ask(pilot, place, "hi")
        waiting = [text for text in shown if text.endswith(", then asks: hi")]
        assert waiting, shown
        assert "then asks" not in place.status


async def test_base_and_adapter_answer_side_by_side(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await pilot.press("ctrl+b", "ctrl+b")
        await ask(pilot, place, "hi")
        assert answers(place) == ["BASE HI", "HI"]


async def test_escape_stops_an_answer_and_keeps_its_text(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHAT", "slow")
    async with chatting() as (pilot, place):
        await type_question(pilot, "one two")
        await until(pilot, lambda: place.is_answering)
        await pilot.press("escape")
        await until(pilot, lambda: not place.is_answering)
        await pilot.pause()
        assert answers(place) == ["ONE"]
        assert "stopped" in str(place.query(".answer-facts").only_one(Static).content)


async def test_edit_takes_the_question_back(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        await pilot.press("ctrl+t", "s")
        assert answers(place) == []
        await pilot.press("enter")
        await until(pilot, lambda: answers(place) == ["ONES"])


async def test_retry_asks_the_same_again(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not place.is_answering)
        await pilot.pause()
        assert answers(place) == ["ONE"]
        assert place.session is not None
        assert len(place.session.conversation.turns) == 1


async def test_a_saved_conversation_goes_on(run: RunFolder) -> None:
    run.chats.mkdir()
    told = transcript.Conversation()
    told.open_turn("before?")
    told.turns[0].answers["adapter"] = transcript.Answer(sampling={}, seed=0, text="earlier", reason="stop", tokens=1)
    transcript.save(run, told, {}, "old", None)
    async with chatting() as (pilot, place):
        await pilot.press("ctrl+o")
        await until(pilot, lambda: not isinstance(pilot.app.screen, ChatPlace))
        await pilot.press("down", "enter")
        await until(pilot, lambda: answers(place) == ["earlier"])
        await ask(pilot, place, "next")
        assert answers(place) == ["earlier", "NEXT"]
    assert len(transcript.load(run.chats / "old.json").turns) == 2


async def test_a_process_that_dies_is_said_and_the_run_can_be_opened_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CHAT", "die")
    async with chatting() as (pilot, place):
        await type_question(pilot, "one")
        await until(pilot, lambda: place.session is None)
        assert "the chat process ended (exit code 3)" in str(place.query_one("#chat-reason", Static).content)
        monkeypatch.setenv("FAKE_CHAT", "")
        place.open_run("bird")
        await until(pilot, lambda: place.session is not None)


async def test_an_answer_is_shown_without_escapes(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        assert place.session is not None
        await place.begin("\x1b[31m[b]x", place.session.ask("\x1b[31m[b]x"))
        await until(pilot, lambda: not place.is_answering)
        await pilot.pause()
        screen = pilot.app.export_screenshot()
        assert "\x1b" not in screen
        assert "[b]x" in screen.replace("&#160;", " ")


async def test_a_run_without_an_adapter_is_refused_kindly() -> None:
    store.create("young", resolve("starter"), {})
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        app.post_message(ChatRequested("young"))
        await until(pilot, lambda: isinstance(app.screen, ChatPlace))
        reason = app.screen.query_one("#chat-reason", Static)
        await until(pilot, lambda: "no finished adapter yet" in str(reason.content))


async def test_the_cpu_is_offered_while_a_run_holds_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu(0, "Test 24G", "GPU-0", 24 << 30, 8 << 30, (8, 6), None, None, None)
    machine = Machine((card,), "600", cpu_cores=2, cpu_percent=0, ram_total_bytes=8 << 30, ram_available_bytes=4 << 30)
    monkeypatch.setattr(hardware, "snapshot", lambda: machine)
    owl, busy = (store.create(name, resolve("starter", None, ["model.device=auto"]), {}) for name in ("owl", "busy"))
    owl.adapter.mkdir()
    on_it = Resolved(field="model.device", value="cuda", reason="most free memory", gpu_uuid="GPU-0")
    EventWriter(busy.events).write(on_it)
    app = Workbench()
    with jobs.hold(busy):
        async with app.run_test(size=(80, 24)) as pilot:
            app.post_message(ChatRequested("owl"))
            await until(pilot, lambda: isinstance(app.screen, ChatPlace))
            place, reason = app.screen, app.screen.query_one("#chat-reason", Static)
            await until(pilot, lambda: "'busy' is training on GPU 0" in str(reason.content))
            assert isinstance(place, ChatPlace) and place.session is None
            await pilot.pause()
            await pilot.click("#chat-on-cpu")
            await until(pilot, lambda: place.session is not None)
            await ask(pilot, place, "who is ada")
            assert answers(place) == ["WHO IS ADA"]


async def test_a_slider_changes_the_next_answer(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        place.query_one("#sampling-temperature").focus()
        await pilot.press("right", "right")
        assert place.session is not None
        assert place.session.sampling.temperature == pytest.approx(0.1)


async def test_what_was_set_before_the_first_question_holds_for_it(run: RunFolder) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.wanted is not None)
        place = app.screen
        assert isinstance(place, ChatPlace)
        place.query_one("#system-prompt").focus()
        await type_question(pilot, "be brief")
        place.query_one("#sampling-temperature").focus()
        await pilot.press("left")
        place.query_one(Prompt).focus()
        await ask(pilot, place, "hi")
        assert place.session is not None
        assert place.session.conversation.system == "be brief"
        assert place.session.sampling.temperature == pytest.approx(0.65)
        assert place.query_one("#sampling-temperature", Slider).value == pytest.approx(0.65)
        assert place.query_one("#system-prompt", Input).value == "be brief"


async def test_unload_ends_the_process_and_the_next_question_goes_on(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        assert place.session is not None
        first = place.session.client
        assert "Unload" in words(pilot.app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: not first.alive)
        await pilot.pause()
        assert place.session is None
        assert "bird is unloaded" in place.status
        assert "Unload" not in words(pilot.app)
        assert answers(place) == ["ONE"]
        await type_question(pilot, "two")
        await until(pilot, lambda: answers(place) == ["ONE", "TWO"] and not place.is_answering)
        assert place.session is not None
        assert [turn.question for turn in place.session.conversation.turns] == ["one", "two"]
    assert len(list(run.chats.glob("*.json"))) == 1, "one conversation in one file"


async def test_an_unloaded_answer_can_be_asked_for_again(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        await pilot.press("ctrl+l", "ctrl+r")
        await until(pilot, lambda: place.session is not None and not place.is_answering and bool(answers(place)))
        assert answers(place) == ["ONE"]


async def test_a_run_that_starts_gets_the_memory_of_the_chat(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHAT", "slow")
    alive: list[bool] = []
    async with chatting() as (pilot, place):
        assert place.session is not None
        client = place.session.client
        await type_question(pilot, "one two")
        await until(pilot, lambda: place.is_answering and bool(place.query(TurnView)))

        def start(*_: object, **__: object) -> RunFolder:
            alive.append(client.alive)
            return run

        monkeypatch.setattr(starting, "start", start)
        await pilot.press("f2")
        pilot.app.post_message(StartRequested(resolve("starter")))
        await until(pilot, lambda: pilot.app.current_mode == "run")
        assert alive == [False]
        await pilot.press("f6")
        await until(pilot, lambda: not place.query(TurnView))
        assert place.query_one(Prompt).text == "one two"


async def test_quitting_waits_for_no_model_that_still_loads(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHAT", "mute")
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and "parrot" in app.screen.status)
        await pilot.press("ctrl+q")
    # The thread that waited for the model is gone: the loop ends without it.
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_run_that_was_removed_is_said(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("gone"))
        await until(pilot, lambda: any("gone" in told.message for told in pilot.app._notifications))
        assert place.session is not None and shown(place)[0] == "bird", "what was loaded stays"


async def test_a_run_that_vanishes_before_it_is_chosen_is_said(run: RunFolder) -> None:
    other = store.create("owl", resolve("starter"), {})
    other.adapter.mkdir()
    async with chatting() as (pilot, place):
        store.remove(other)
        place.query_one("#chat-run", Select).value = "owl"
        await until(pilot, lambda: any("'owl'" in told.message for told in pilot.app._notifications))


async def test_a_checkpoint_that_was_cut_short_is_passed_over() -> None:
    young = store.create("young", resolve("starter"), {})
    for step in (3, 6):
        folder = young.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    checkpoints.seal(young.checkpoints / "checkpoint-3")
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        app.post_message(ChatRequested("young"))
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and app.screen.session is not None)
        assert isinstance(app.screen, ChatPlace)
        assert app.screen.wanted == ("young", 3)
        assert app.screen.query_one("#chat-checkpoint", Select).value == 3


async def test_a_question_that_comes_in_one_burst_is_sent_whole(run: RunFolder) -> None:
    """As a terminal hands over what was typed while the program was busy."""
    async with chatting() as (pilot, place):
        for key, character in (("w", "w"), ("h", "h"), ("o", "o"), ("enter", "\r")):
            pilot.app.post_message(events.Key(key, character))
        await until(pilot, lambda: bool(place.query(TurnView)) and not place.is_answering)
        await until(pilot, lambda: answers(place) == ["WHO"])


@pytest.fixture
def owl() -> RunFolder:
    folder = store.create("owl", resolve("starter"), {})
    folder.adapter.mkdir()
    return folder


def chosen(place: ChatPlace) -> tuple[object, object]:
    """Return the values of the two selectors."""
    return place.query_one("#chat-run", Select).value, place.query_one("#chat-checkpoint", Select).value


def shown(place: ChatPlace) -> list[str]:
    """Return the labels of the two selectors."""
    return [
        str(place.query_one(f"{name} SelectCurrent #label", Static).visual)
        for name in ("#chat-run", "#chat-checkpoint")
    ]


async def test_the_selector_names_the_run_that_was_opened_from_another_place(run: RunFolder, owl: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("owl"))
        await until(pilot, lambda: place.session is not None and place.session.client.choice.run.name == "owl")
        await until(pilot, lambda: shown(place)[0] == "owl")
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: place.session is not None and place.session.client.choice.run.name == "bird")
        await until(pilot, lambda: shown(place)[0] == "bird")


async def test_a_run_finished_since_the_list_was_read_is_named(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await pilot.press("f2")
        store.create("new", resolve("starter"), {}).adapter.mkdir()
        pilot.app.post_message(ChatRequested("new"))
        await until(pilot, lambda: shown(place)[0] == "new")


@pytest.mark.parametrize("unloaded", [False, True])
async def test_asking_for_the_loaded_run_keeps_the_conversation(run: RunFolder, unloaded: bool) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        assert place.session is not None
        before = place.session.client
        if unloaded:
            await pilot.press("ctrl+l")
            await until(pilot, lambda: not place.is_loaded)
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: pilot.app.screen is place and place.session is not None)
        assert (place.session.client is before) is not unloaded
        assert answers(place) == ["ONE"]
        await ask(pilot, place, "two")
        assert answers(place) == ["ONE", "TWO"]


async def test_asking_for_the_run_of_a_loaded_checkpoint_keeps_the_conversation(run: RunFolder) -> None:
    folder = run.checkpoints / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    checkpoints.seal(folder)
    async with chatting() as (pilot, place):
        assert chosen(place) == ("bird", -1)
        place.query_one("#chat-checkpoint", Select).value = 3
        await until(pilot, lambda: place.wanted == ("bird", 3) and place.session is not None)
        await ask(pilot, place, "one")
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: pilot.app.screen is place)
        await until(pilot, lambda: "checkpoint 3" in place.status)
        assert answers(place) == ["ONE"]
        assert chosen(place) == ("bird", 3)


async def test_a_new_adapter_of_the_loaded_run_is_loaded_and_the_conversation_kept(run: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await ask(pilot, place, "one")
        assert place.session is not None
        before = place.session.client
        run.adapter.rename(run.path / "old")
        run.adapter.mkdir()
        await pilot.press("f2")
        pilot.app.post_message(ChatRequested("bird"))
        await until(pilot, lambda: place.session is not None and place.session.client is not before)
        assert answers(place) == ["ONE"]


async def test_a_removed_run_that_is_loaded_is_still_named(run: RunFolder, owl: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await pilot.press("f2")
        store.remove(run)
        await pilot.press("f6")
        await until(pilot, lambda: shown(place)[0] == "bird (removed)")
        place.query_one("#chat-run", Select).value = "owl"
        await until(pilot, lambda: place.session is not None and place.session.client.choice.run.name == "owl")
        assert shown(place)[0] == "owl"


async def test_a_run_that_cannot_be_opened_is_not_shown_as_chosen(run: RunFolder, owl: RunFolder) -> None:
    async with chatting() as (pilot, place):
        await until(pilot, lambda: len(place.query_one("#chat-run", Select)._options) > 1)
        store.remove(owl)
        place.query_one("#chat-run", Select).value = "owl"
        await until(pilot, lambda: any("'owl'" in told.message for told in pilot.app._notifications))
        await until(pilot, lambda: shown(place)[0] == "bird")
        assert place.session is not None and place.session.client.choice.run.name == "bird"


async def test_a_loaded_checkpoint_that_was_rotated_away_is_still_named(run: RunFolder) -> None:
    store.remove(run)
    young = store.create("bird", resolve("starter"), {})
    for step in (3, 6):
        folder = young.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        checkpoints.seal(folder)
    async with chatting() as (pilot, place):
        assert chosen(place) == ("bird", 6)
        await pilot.press("f2")
        checkpoints.discard_older(young.checkpoints, 0, frozenset({3}))
        await pilot.press("f6")
        await until(pilot, lambda: shown(place)[1] == "checkpoint 6 (removed)")


async def test_the_status_line_of_an_empty_chat_is_drawn(run: RunFolder) -> None:
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "bird is loaded when you ask" in words(app))
    store.remove(run)
    app = Workbench(place="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "No run has an adapter yet" in words(app))
