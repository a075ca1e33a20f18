"""The demonstration shows answers while it trains, and ends in a chat with suggested questions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from run_material import beginning, finished, training, written
from run_screen import head, shown, until
from screen_material import words
from test_chat_place import answers, parrot
from textual.pilot import Pilot
from textual.widgets import Button, Select

from qlora_tui.config import toml_file
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import StorageError
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import HELDOUT_DATA, demo
from qlora_tui.ui import starting
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import StartRequested
from qlora_tui.ui.screens.chat import ChatPlace
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.suggestions import Suggestions

__all__ = ["parrot"]
SIZES = pytest.mark.parametrize("size", [(80, 24), (160, 45)])
SMALL = (80, 24)


@pytest.fixture
def run() -> RunFolder:
    """A demonstration after half of its steps."""
    folder = written("one", [*beginning(), *training(120)])
    folder.config.write_text(toml_file.to_toml(demo.config(), comment=""))
    return folder


@asynccontextmanager
async def ended(run: RunFolder, size: tuple[int, int]) -> AsyncIterator[tuple[Pilot[Any], ChatPlace]]:
    """The workbench after the demonstration has finished in its Run place."""
    app = Workbench(run="one")
    async with app.run_test(size=size) as pilot:
        with jobs.hold(run):
            await shown(pilot, app, lambda seen: seen.status == "running" and seen.state.step_number == 120)
            run.adapter.mkdir()
            with run.events.open("a") as file:
                for number, event in enumerate([*training()[126:], finished()], 1000):
                    file.write(event.model_copy(update={"seq": number, "time_s": 1.9e9}).model_dump_json() + "\n")
            await shown(pilot, app, lambda seen: seen.state.step_number == 200)
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and bool(app.screen.suggested))
        assert isinstance(app.screen, ChatPlace)
        yield pilot, app.screen


async def ask_next(pilot: Pilot[Any], place: ChatPlace, turns: int) -> None:
    await until(pilot, lambda: place.query_one(Prompt).suggestion and not place.is_answering)
    await pilot.press("enter")
    await until(pilot, lambda: len(answers(place)) == 2 * turns and not place.is_answering)
    await pilot.pause()


@SIZES
async def test_it_ends_in_a_chat_with_base_and_adapter_side_by_side(run: RunFolder, size: tuple[int, int]) -> None:
    async with ended(run, size) as (pilot, place):
        assert place.query_one("#chat-side", Select).value == "both"
        await until(pilot, lambda: all(question in words(pilot.app) for question in demo.QUESTIONS))
        for turns in (1, 2, 3):
            await ask_next(pilot, place, turns)
        first = demo.QUESTIONS[0].upper()
        assert answers(place)[:2] == [f"BASE {first}", first]
        base, adapter = list(place.query("AnswerView"))[-2:]
        assert base.region.y == adapter.region.y and base.region.right <= adapter.region.x
        assert place.query_one(Suggestions).questions == ()
        assert not place.query_one(Prompt).suggestion


@SIZES
async def test_a_question_is_asked_by_a_click(run: RunFolder, size: tuple[int, int]) -> None:
    async with ended(run, size) as (pilot, place):
        await until(pilot, lambda: len(place.query_one(Suggestions).query(Button)) == 3)
        await pilot.pause()
        await pilot.click(place.query_one(Suggestions).query(Button)[1])
        question = demo.QUESTIONS[1]
        await until(pilot, lambda: answers(place) == [f"BASE {question.upper()}", question.upper()])
        await until(pilot, lambda: place.query_one(Suggestions).questions == (demo.QUESTIONS[0], demo.QUESTIONS[2]))


async def test_own_question_hides_the_suggestions(run: RunFolder) -> None:
    async with ended(run, SMALL) as (pilot, place):
        await pilot.press("h", "i", "enter")
        await until(pilot, lambda: answers(place) == ["BASE HI", "HI"])
        await until(pilot, lambda: not place.query_one(Suggestions).display)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: place.query_one(Suggestions).questions == demo.QUESTIONS)


async def test_another_run_answers_without_its_base_by_default(run: RunFolder) -> None:
    store.create("owl", resolve("starter"), {}).adapter.mkdir()
    async with ended(run, SMALL) as (pilot, place):
        await until(pilot, lambda: len(place.query_one("#chat-run", Select)._options) > 1)
        place.query_one("#chat-run", Select).value = "owl"
        await until(pilot, lambda: place.query_one("#chat-side", Select).value == "adapter")
        assert not place.query_one(Suggestions).display
        await pilot.press("ctrl+b")
        place.query_one("#chat-run", Select).value = "one"
        await until(pilot, lambda: bool(place.suggested))
        assert place.query_one("#chat-side", Select).value == "base"


async def test_the_sample_prompts_of_any_run_are_suggested() -> None:
    prompts = ["[b]one[/] \x1b[31m", "two", "three", "four"]
    config = resolve("starter")
    asked = config.model_copy(update={"training": config.training.model_copy(update={"sample_prompts": prompts})})
    store.create("own", asked, {}).adapter.mkdir()
    app = Workbench(place="chat")
    async with app.run_test(size=SMALL) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatPlace) and len(app.screen.suggested) == 3)
        await until(pilot, lambda: "› three" in words(app))
        assert "[b]one[/]" in words(app) and "\x1b" not in words(app)
        assert "four" not in words(app)


@SIZES
async def test_the_newest_answer_is_in_view_while_it_trains(run: RunFolder, size: tuple[int, int]) -> None:
    app = Workbench(run="one")
    async with app.run_test(size=size) as pilot:
        with jobs.hold(run):
            await shown(pilot, app, lambda seen: seen.status == "running")
            assert "Sample, step 100: Who owns the red boat? →" in head(app)
            assert "Mira owns it." in head(app)


async def test_a_finished_demo_that_is_opened_again_stays_in_run(run: RunFolder) -> None:
    with run.events.open("a") as file:
        file.write(finished().model_dump_json() + "\n")
    app = Workbench(run="one")
    async with app.run_test(size=SMALL) as pilot:
        await shown(pilot, app, lambda seen: seen.status == "finished")
        assert app.current_mode == "run"


def test_the_questions_are_held_out() -> None:
    held_out = HELDOUT_DATA.read_text(encoding="utf-8")
    assert len(demo.QUESTIONS) == 3
    assert all(f'"{question}"' in held_out for question in demo.QUESTIONS)


Answer = Callable[[], RunFolder]


async def test_start_is_shown_immediately_and_a_refusal_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    written("old", [*beginning(), *training(3), finished(3)])
    app = Workbench()

    def refuse(*_: object, **__: object) -> RunFolder:
        assert app.current_mode == "run", "the place is shown first"
        raise StorageError("no space left")

    monkeypatch.setattr(starting, "start", refuse)
    async with app.run_test(size=SMALL) as pilot:
        app.post_message(StartRequested(resolve("starter"), "mine"))
        await until(pilot, lambda: any("no space left" in told.message for told in app._notifications))
        await until(pilot, lambda: app.current_mode == "home")
        assert not app.starting


async def test_no_other_run_is_shown_while_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    written("old", [*beginning(), *training(3), finished(3)])
    app = Workbench(run="old")
    seen: list[str] = []

    def start(*_: object, **__: object) -> RunFolder:
        app.call_from_thread(lambda: seen.append(words(app)))
        return written("mine", [events.Created(name="mine", program_version="0"), *beginning()])

    monkeypatch.setattr(starting, "start", start)
    async with app.run_test(size=SMALL) as pilot:
        await shown(pilot, app, lambda view: view.name == "old")
        app.post_message(StartRequested(resolve("starter"), "mine"))
        await shown(pilot, app, lambda view: view.name == "mine")
    assert "Starting mine" in seen[0] or "old  ✓" not in seen[0]
