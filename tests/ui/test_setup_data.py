"""The data section of Setup: what the rows are, what a person has to say of them, and what the loss will see."""

import json
from pathlib import Path

import pytest
from setup_material import give, know_few_models, looked_into, machine, priced, setup, text, until
from textual.widgets import Collapsible, Input, OptionList, Select

from qlora_tui.config import presets
from qlora_tui.config.overrides import resolve
from qlora_tui.runs import store
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.widgets.column_field import ColumnField

EVIL = "[bold]a[/]"
ALIKE = ("Where does the river begin?", "It begins in the hills far away.")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine())
    know_few_models(monkeypatch)


def workbench(rows: Path, lines: list[dict[str, object]], *overrides: str) -> Workbench:
    """Setup with these rows as the draft's data."""
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    app = Workbench(place="setup")
    app.draft = resolve(overrides=[f"data.source={json.dumps(str(rows))}", *overrides])
    return app


def columns(app: Workbench) -> dict[str, Select[str]]:
    """The pick lists, by the last part of their setting's key."""
    return {field.key.rpartition(".")[2]: field.query_one(Select) for field in setup(app).query(ColumnField)}


def offered(select: Select[str]) -> list[str]:
    return [str(option.prompt) for shown in select.query(OptionList) for option in shown.options]


async def test_who_asks_and_who_answers_is_picked_from_the_columns_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = [{"data.columns.prompt": EVIL, "data.columns.response": "beta"}]
    told = {"message": "which column asks?", "hint": "Choose one.", "choices": readings, "columns": [EVIL, "beta"]}
    looked_into(monkeypatch, {"event": "error", **told})
    app = workbench(tmp_path / "rows.jsonl", [])
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: "which column" in text(app, "#data-stage") and columns(app))
        assert not setup(app).query_one("ColumnsForm Collapsible", Collapsible).collapsed
        prompt, response = columns(app)["prompt"], columns(app)["response"]
        await until(pilot, lambda: offered(prompt) == ["found by itself", EVIL, "beta"])
        prompt.focus()
        await pilot.press("enter", "down", "enter")
        await until(pilot, lambda: app.draft.data.columns.prompt == EVIL)
        response.focus()
        await pilot.press("enter", "end", "enter")
        await until(pilot, lambda: app.draft.data.columns.response == "beta")
        response.value = ""
        await until(pilot, lambda: app.draft.data.columns.response is None)
        await until(pilot, lambda: setup(app).query_one("#data-readings").display)
        setup(app).query_one("#data-readings").focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.draft.data.columns.response == "beta")


@pytest.mark.long
async def test_rows_that_can_be_read_in_several_ways_are_asked_about(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [{EVIL: f"{ALIKE[0]} {n}", "beta": f"{ALIKE[1]} {n}"} for n in range(30)]
    app = workbench(tmp_path / "rows.jsonl", lines)
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: EVIL in text(app, "#data-stage") and columns(app))
        await until(pilot, lambda: offered(columns(app)["prompt"]) == ["found by itself", EVIL, "beta"])


async def test_other_data_forgets_the_columns_of_the_former(tmp_path: Path) -> None:
    app = workbench(tmp_path / "rows.jsonl", [{"a": "b"}], 'data.columns.prompt="a"')
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d", "home")
        choices = setup(app).query_one("#data-choices", OptionList)

        def marked() -> list[str]:
            return [str(one.prompt).split()[1] for one in choices.options if str(one.prompt).startswith("●")]

        assert marked() == []
        await pilot.press("enter")
        await until(pilot, lambda: app.draft.data.source == "starter")
        assert app.draft.data.columns.prompt is None
        await until(pilot, lambda: marked() == ["starter"])


async def test_other_data_resets_what_described_the_former_and_undo_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_into(monkeypatch)
    app = workbench(tmp_path / "rows.jsonl", [{"a": "b"}])
    app.draft, app.draft_source = presets.find("llama-3.1-8b").config, "preset llama-3.1-8b"
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        line = setup(app).query_one("#data-source", Input)
        line.focus()
        await pilot.press("home", "ctrl+k", *str(tmp_path / "rows.jsonl"), "enter")
        await until(pilot, lambda: app.draft.data.source.endswith("rows.jsonl"))
        data, training = app.draft.data, app.draft.training
        assert (data.format, data.eval_rows, training.eval_every_steps) == ("auto", 0, None)
        assert training.max_length_tokens == 2048
        assert any("data.format = guanaco-turns" in toast.message for toast in app._notifications)
        await pilot.press("escape", "ctrl+z")
        await until(pilot, lambda: app.draft == presets.find("llama-3.1-8b").config)


async def test_nothing_of_the_former_data_is_shown_while_other_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"format": "messages", "confidence": 1, "used_columns": {}, "evidence": ["roles"], "notes": []}
    looked_into(monkeypatch, {"event": "source", "first_bad_rows": [], "columns": ["messages"], **found})
    app = workbench(tmp_path / "rows.jsonl", [])
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: "because roles" in text(app, "#data-evidence"))
        looked_into(monkeypatch)  # the next look says nothing for now
        setup(app).edit({"data.source": json.dumps(str(tmp_path / "other.jsonl"))})
        await until(pilot, lambda: text(app, "#data-evidence") == "")


async def test_source_not_applied_prevents_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_into(monkeypatch)
    app = workbench(tmp_path / "rows.jsonl", [{"a": "b"}])
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        line = setup(app).query_one("#data-source", Input)
        line.focus()
        await pilot.press("home", "ctrl+k", *"other.jsonl", "f9")
        await until(pilot, lambda: any("other.jsonl" in toast.message for toast in app._notifications))
        assert app.screen is setup(app) and line.has_focus and not store.all_runs()
        await pilot.press("escape")
        await until(pilot, lambda: line.value == str(tmp_path / "rows.jsonl"))


async def test_the_format_of_the_former_data_is_not_said_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"format": "messages", "confidence": 1, "used_columns": {}, "evidence": [], "notes": [], "columns": []}
    looked_into(monkeypatch, {"event": "source", "first_bad_rows": [], **found})
    app = workbench(tmp_path / "rows.jsonl", [])
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: "format messages" in text(app, "#data-evidence"))
        setup(app).edit({"adapter.rank": "8"})
        await until(pilot, lambda: "rows.jsonl, messages, rows up to" in text(app, "#section-summary"))
        looked_into(
            monkeypatch, {"event": "error", "message": "no such file", "hint": "", "choices": [], "columns": []}
        )
        setup(app).edit({"data.source": json.dumps("/nowhere.jsonl")})
        await until(pilot, lambda: "no such file" in text(app, "#data-stage"))
        assert text(app, "#section-summary") == "/nowhere.jsonl, rows up to 1,024 tokens"


@pytest.mark.long
async def test_rows_are_seen_token_by_token_and_one_jumps_to_the_longest_and_the_cut(tmp_path: Path) -> None:
    lines = [{"prompt": f"say {n}", "completion": "so " * (1 + 10 * (n == 5) + 200 * (n == 9))} for n in range(12)]
    app = workbench(tmp_path / "rows.jsonl", lines, "training.max_length_tokens=64")
    async with app.run_test(size=(120, 40)) as pilot:
        await priced(pilot, app)
        await pilot.press("d")
        preview = setup(app).query_one("TokenPreview")
        await until(pilot, lambda: "row 1 of" in str(preview.query_one("Static").visual))
        await until(pilot, lambda: "first 12 rows" in text(app, "#data-stage"))
        assert "cut at 64 tokens" in str(setup(app).query_one("LengthHistogram").visual)
        assert "1 row" in text(app, "#data-stage") or "8.3%" in text(app, "#data-stage")
        preview.focus()
        await pilot.press("n")
        assert preview.origin == "rows.jsonl:2"  # type: ignore[attr-defined]
        await pilot.press("p", "l")
        assert preview.origin == "rows.jsonl:10"  # type: ignore[attr-defined]
        await pilot.press("p", "c")
        assert preview.origin == "rows.jsonl:10"  # type: ignore[attr-defined]
        assert "cut away" in str(preview.query_one("Static").visual)
        await pilot.press("i")
        await until(pilot, lambda: "all 12 rows" in text(app, "#data-stage"))
