"""Setup before a hub on this machine: found, described and asked for; nothing is downloaded without a yes."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import fake_worker  # noqa: F401
from hub_server import HubServer
from setup_material import give, know_few_models, machine, priced, setup, text, until
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from qlora_tui import models
from qlora_tui.errors import ModelError
from qlora_tui.runs import jobs, store
from qlora_tui.starter import MODEL_DIR
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import StartRequested
from qlora_tui.ui.widgets import model_section
from qlora_tui.ui.widgets.confirm import Confirm

SIZE = (120, 40)
WEIGHTS_BYTES = (MODEL_DIR / "model.safetensors").stat().st_size


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    model = folder / "models" / "open" / "small"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.copy(MODEL_DIR / name, model / name)
    rows = folder / "datasets" / "open" / "rows" / "train.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("".join(json.dumps({"prompt": f"q {n}", "response": f"a {n}"}) + "\n" for n in range(30)))
    with HubServer(folder) as server:
        yield server


@pytest.fixture
def hub(served: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The server, where the hub libraries of this process and of its children look for it, and an empty cache."""
    served.be_found(monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    give(monkeypatch, machine())
    know_few_models(monkeypatch)
    return served


def dialog(app: Workbench) -> str:
    """What the question over the place says."""
    return "\n".join(str(line.visual) for line in app.screen.query(Static))


async def test_a_model_is_found_on_the_hub_and_downloaded_by_the_worker_after_a_yes(
    hub: HubServer,
    tmp_path: Path,
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    heard: list[Message] = []
    app = Workbench(place="setup")
    async with app.run_test(size=SIZE, message_hook=heard.append) as pilot:
        await priced(pilot, app)
        await pilot.press("slash", *"open/sm")
        await until(pilot, lambda: "1 found on the hub" in text(app, "#model-status"))
        await pilot.press("enter")
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: "MB" in str(table.get_cell("open/small", "size").plain))
        await pilot.press("enter")
        await until(pilot, lambda: app.draft.model.id == "open/small")
        await priced(pilot, app)
        assert hub.sent_bytes < WEIGHTS_BYTES / 2, "the sizes of the weights are read, not the weights"
        assert not list(tmp_path.glob("cache/models--*/snapshots/*/*.safetensors"))

        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "model open/small" in dialog(app) and "MB would go to" in dialog(app)
        assert str(tmp_path / "cache") in "".join(dialog(app).split())
        await until(pilot, lambda: app.focused is not None and app.focused.id == "no")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert not store.all_runs() and hub.sent_bytes < WEIGHTS_BYTES / 2

        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: app.current_mode == "run" and app.screen.is_mounted)
        # The place opens at once; the worker writes its events when it has started.
        await until(pilot, lambda: any(jobs.replay(run).warnings for run in store.all_runs()))
    assert {one.allow_download for one in heard if isinstance(one, StartRequested)} == {True}
    assert jobs.replay(store.all_runs()[0]).warnings[0].message == "--allow-download"


async def test_the_hub_is_asked_once_and_its_answer_comes_while_one_looks_at_models_here(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_section, "PAUSE_S", 4.0)  # longer than a busy machine takes from key to key
    app = Workbench(place="setup")
    async with app.run_test(size=SIZE) as pilot:
        await priced(pilot, app)
        await pilot.press("slash", *"small", *["backspace"] * 5, *"llama", "enter", "down")
        await until(pilot, lambda: "nothing on the hub is called llama" in text(app, "#model-status"))
    assert [line.split("&")[0] for line in hub.requests if "search=" in line] == ["GET /api/models?search=llama"]


async def test_what_is_told_of_a_model_is_kept_while_one_types_on(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slowly(model_id: str, *how: Any, **named: Any) -> models.ModelFacts:
        if model_id == "open/small":
            asked.set()
            assert answer.wait(60)
        return describe(model_id, *how, **named)

    describe = models.describe
    monkeypatch.setattr(models, "describe", slowly)
    app = Workbench(place="setup")
    async with app.run_test(size=SIZE) as pilot:
        await priced(pilot, app)
        await pilot.press("slash", *"open/sm")
        await until(pilot, asked.is_set)
        await pilot.press("x")
        answer.set()
        await until(pilot, lambda: "nothing on the hub" in text(app, "#model-status"))
        await pilot.press("backspace")
        await until(pilot, lambda: "1 found on the hub" in text(app, "#model-status"))
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: "MB" in str(table.get_cell("open/small", "size").plain))


async def test_what_could_not_be_told_of_a_model_is_asked_again_by_a_new_search(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()

    def at_first_refused(model_id: str, *how: Any, **named: Any) -> models.ModelFacts:
        if model_id == "open/small" and not refused.is_set():
            refused.set()
            raise ModelError("the hub cannot be reached", hint="Try again.")
        return describe(model_id, *how, **named)

    describe = models.describe
    monkeypatch.setattr(models, "describe", at_first_refused)
    app = Workbench(place="setup")
    async with app.run_test(size=SIZE) as pilot:
        await priced(pilot, app)
        await pilot.press("slash", *"open/sm")
        await until(pilot, lambda: "the hub cannot be reached" in text(app, "#model-facts-text"))
        await pilot.press("a")
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: table.row_count == 1 and "MB" in str(table.get_cell("open/small", "size").plain))


@pytest.mark.long
async def test_data_of_the_hub_is_asked_for_where_one_chooses_it_and_looked_into_after_a_yes(
    hub: HubServer, tmp_path: Path
) -> None:
    app = Workbench(place="setup")
    async with app.run_test(size=SIZE) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        line = setup(app).query_one("#data-source", Input)
        line.focus()
        await pilot.press("home", "ctrl+k", *"open/rows", "enter")
        await until(pilot, lambda: setup(app).query_one("#data-question").display)
        question = text(app, "#data-question > Static")
        assert "dataset open/rows" in question and "kB would go to" in question
        assert str(tmp_path / "cache") in question
        await until(pilot, lambda: app.focused is not None and app.focused.id == "data-no")
        await pilot.press("enter")
        await until(pilot, lambda: "is not on this machine" in text(app, "#data-stage"))
        assert hub.file_requests() == []
        await pilot.press("i")
        await until(pilot, lambda: setup(app).query_one("#data-question").display)
        await pilot.click("#data-yes")
        await until(pilot, lambda: "all 30 rows" in text(app, "#data-stage"))
        assert hub.file_requests() != []
