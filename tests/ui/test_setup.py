"""Setup by keyboard and mouse: what is typed changes the draft, is priced, and starts what the command starts."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command, fake_worker  # noqa: F401
from run_material import step
from setup_material import GIB, give, know_few_models, machine, price_of, priced, setup, text, until
from textual.events import Key
from textual.message import Message
from textual.widgets import Checkbox, DataTable, Input, OptionList, Select
from textual.widgets._footer import FooterKey

from qlora_tui.config import presets
from qlora_tui.config.fields import fields
from qlora_tui.config.overrides import resolve
from qlora_tui.evaluation import quantization_errors
from qlora_tui.forecast import speed
from qlora_tui.forecast.speed import Speed
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.models import catalogue
from qlora_tui.runs import store
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.ui import setup_summary
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import ConfigEdited, StartRequested
from qlora_tui.ui.pricing import Counted
from qlora_tui.ui.widgets import pricer
from qlora_tui.ui.widgets.fit_panel import AdviceList, FitPanel
from qlora_tui.ui.widgets.memory_panel import MemoryPanel
from qlora_tui.ui.widgets.outline import OutlineEntry
from qlora_tui.ui.widgets.pricer import Pricer
from qlora_tui.ui.widgets.setting_field import SettingField
from qlora_tui.ui.widgets.settings_form import SettingsForm
from qlora_tui.units import memory

WIDE = (160, 45)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine())
    know_few_models(monkeypatch)


def field(app: Workbench, key: str) -> SettingField:
    return next(one for one in setup(app).query(SettingField) if one.key == key)


def workbench() -> Workbench:
    return Workbench(place="setup")


async def type_into(pilot, app: Workbench, key: str, typed: str) -> None:  # type: ignore[no-untyped-def]
    """Go to a field as its label says, empty it, and type."""
    await setup(app).show_field(key)
    await pilot.pause()
    await pilot.press("home", "ctrl+k", *typed)


@pytest.mark.long
async def test_every_setting_can_be_edited_and_explains_itself() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        for form in setup(app).query(SettingsForm):
            await form.unfold()
        shown = {one.key: one for one in setup(app).query(SettingField)}
        # The model and the data have pickers of their own.
        assert set(shown) == set(fields()) - {"model.id", "data.source", "data.columns"}
        assert all(one.setting.help in one.explanation for one in shown.values())


async def test_an_edit_goes_to_the_draft_and_is_priced() -> None:
    app = workbench()
    heard: list[Message] = []
    async with app.run_test(size=WIDE, message_hook=heard.append) as pilot:
        await priced(pilot, app)
        before = price_of(app).estimate.trainable_parameters
        await type_into(pilot, app, "adapter.rank", "64")
        await until(pilot, lambda: app.draft.adapter.rank == 64)
        await priced(pilot, app)
        assert price_of(app).estimate.trainable_parameters == 4 * before
        assert "rank 64" in text(app, "#section-summary")
        assert {"adapter.rank": "64"} in [one.edits for one in heard if isinstance(one, ConfigEdited)]


async def test_an_edit_that_does_not_validate_stays_with_its_reason_and_the_draft_as_it_was() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        before = app.draft
        await type_into(pilot, app, "training.epochs", "many")
        rank = field(app, "training.epochs")
        await until(pilot, lambda: rank.has_class("-invalid"))
        assert rank.query_one(Input).value == "many"
        assert "expected a number" in rank.explanation
        assert app.draft == before
        await pilot.press("f9")
        await pilot.pause()
        assert not store.all_runs()
        await type_into(pilot, app, "training.epochs", "2")
        await until(pilot, lambda: app.draft.training.epochs == 2)
        assert not rank.has_class("-invalid")


@pytest.mark.parametrize("key", ["f9", "ctrl+s", "ctrl+y"])
async def test_a_half_typed_value_is_not_used(key: str) -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        before = app.draft
        await type_into(pilot, app, "training.learning_rate", "3")
        await until(pilot, lambda: app.draft.training.learning_rate == 3)
        await pilot.press("0", "0")
        rate = field(app, "training.learning_rate")
        await until(pilot, lambda: rate.has_class("-invalid"))
        assert app.draft == before, "what was valid on the way to an invalid value is gone"
        assert app.draft_source == "preset starter"
        assert rate.query_one(Input).value == "300"
        assert "learning rate 0.003" in text(app, "#section-summary")
        await pilot.press("escape", "m", key)
        await until(pilot, lambda: rate.query_one(Input).has_focus)
        assert app.screen is setup(app), "no dialog is open"
        assert any("training.learning_rate: found 300" in toast.message for toast in app._notifications)
        assert not store.all_runs()
        await pilot.press("escape", "ctrl+z")
        await until(pilot, lambda: rate.query_one(Input).value == "0.003")
        assert app.draft == before


async def test_an_invalid_value_returns_to_the_one_before_the_field_was_entered() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "adapter.rank", "8")
        await until(pilot, lambda: app.draft.adapter.rank == 8)
        await type_into(pilot, app, "adapter.alpha", "9")
        await until(pilot, lambda: app.draft.adapter.alpha == 9)
        await type_into(pilot, app, "adapter.rank", "4x")
        await until(pilot, lambda: field(app, "adapter.rank").has_class("-invalid"))
        assert (app.draft.adapter.rank, app.draft.adapter.alpha) == (8, 9)


async def test_last_key_before_the_start_is_applied(
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "adapter.rank", "")
        editor = field(app, "adapter.rank").query_one(Input)
        with editor.prevent(Input.Changed):  # not heard yet
            editor.value = "5"
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 1)
    assert store.all_runs()[0].load_config().adapter.rank == 5


async def test_the_first_draft_is_the_starter_preset() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        assert app.draft == presets.find("starter").config
        assert "preset starter" in str(setup(app).query_one("#form").border_title)
        assert setup(app).command.shell_lines() == ["qlora-tui train starter"]


async def test_a_model_brings_the_hyperparameters_of_its_preset_and_undo_takes_them_back() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "adapter.rank", "8")
        await until(pilot, lambda: app.draft.adapter.rank == 8)
        before = app.draft
        await pilot.press("escape", "m")
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: table.row_count == 5)
        table.move_cursor(row=table.get_row_index("meta-llama/Llama-3.1-8B-Instruct"))
        await pilot.press("enter")
        await until(pilot, lambda: app.draft.model.id == "meta-llama/Llama-3.1-8B-Instruct")
        wanted = presets.find("llama-3.1-8b").config
        training = wanted.training.model_copy(update={"eval_every_steps": None})
        assert app.draft.training == training
        assert app.draft.quantization == wanted.quantization
        assert app.draft.model == wanted.model
        assert app.draft.adapter == wanted.adapter.model_copy(update={"rank": 8})
        assert app.draft.data == before.data
        assert app.draft_source == "preset llama-3.1-8b, edited"
        told = " ".join(toast.message for toast in app._notifications)
        assert "training" not in told and "learning_rate = 0.0002" in told
        assert "Your edits were kept: rank" in told
        assert setup(app).command.config == app.draft
        await pilot.press("ctrl+z")
        await until(pilot, lambda: app.draft == before)
        assert app.draft_source == "preset starter, edited"


async def test_a_model_without_a_preset_gets_the_defaults_within_its_context(tmp_path: Path) -> None:
    from qlora_tui.starter import MODEL_DIR

    (tmp_path / "mine").symlink_to(MODEL_DIR)
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        setup(app).adopt(str(tmp_path / "mine"), 512)
        assert app.draft.training.learning_rate == 2e-4
        assert app.draft.training.max_length_tokens == 512
        assert (app.draft.model.device, app.draft_source) == ("auto", "defaults, edited")


async def test_settings_that_exclude_each_other_are_both_marked_until_one_gives_way() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("a")
        field(app, "adapter.kind").query_one(Select).value = "full"
        await until(pilot, lambda: field(app, "adapter.kind").has_class("-invalid"))
        assert "excludes quantization.kind = nf4" in field(app, "quantization.kind").explanation
        assert app.draft.adapter.kind == "lora"
        field(app, "quantization.kind").query_one(Select).value = "none"
        await until(pilot, lambda: app.draft.adapter.kind == "full")
        assert app.draft.quantization.kind == "none"
        assert not field(app, "adapter.kind").has_class("-invalid")


@pytest.mark.long
async def test_a_setting_without_effect_says_why() -> None:
    app = workbench()
    app.draft = resolve()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "training.warmup_ratio", "0.1")
        await until(pilot, lambda: field(app, "training.warmup_ratio").has_class("-idle"))
        assert "has no effect with training.schedule = constant" in field(app, "training.warmup_ratio").explanation


@pytest.mark.long
async def test_what_was_typed_is_not_rewritten_while_it_means_the_same() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "training.learning_rate", "1e-4")
        await until(pilot, lambda: app.draft.training.learning_rate == 1e-4)
        assert field(app, "training.learning_rate").query_one(Input).value == "1e-4"


async def test_keys_that_come_faster_than_the_draft_answers_stay_in_their_order() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "training.learning_rate", "")
        editor = field(app, "training.learning_rate").query_one(Input)
        for key in ("0", ".", "0", "0"):
            editor.post_message(Key(key, key))
        await until(pilot, lambda: setup(app).edits.pending.get("training.learning_rate") == "0.00")
        assert (editor.value, editor.cursor_position) == ("0.00", 4)
        await pilot.press("3")
        await until(pilot, lambda: app.draft.training.learning_rate == 0.003)
        for key in ("4", "backspace"):
            editor.post_message(Key(key, key if len(key) == 1 else None))
        await until(pilot, lambda: editor.value == "0.003" and app.draft.training.learning_rate == 0.003)


async def test_undo_takes_the_last_edit_back() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "adapter.rank", "8")
        await until(pilot, lambda: app.draft.adapter.rank == 8)
        await pilot.press("escape", "ctrl+z")
        await until(pilot, lambda: app.draft.adapter.rank == 16)
        assert field(app, "adapter.rank").query_one(Input).value == "16"
        assert app.draft_source == "preset starter"


async def test_each_section_is_one_key_or_one_click_away() -> None:
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        for key, name in (("a", "adapter"), ("t", "training"), ("m", "model")):
            await pilot.press("escape", key)
            assert setup(app).query_one(f"#section-{name}").display
        for name in ("training", "adapter", "model"):
            await pilot.click(f"#outline-{name}")
            assert setup(app).query_one(f"#section-{name}").display
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.current_mode == "home")


async def test_a_run_is_set_up_and_started_by_mouse_alone(
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: table.row_count > 1)
        second = str(table.ordered_rows[1].key.value)
        for _ in range(2):  # The first click marks a row, the second takes it.
            await pilot.click(table, offset=(6, 2))
        await until(pilot, lambda: app.draft.model.id == second)
        for _ in range(2):
            await pilot.click(table, offset=(6, 1))
        await until(pilot, lambda: app.draft.model.id == "starter")
        await pilot.click("#outline-adapter")
        box = field(app, "quantization.double_quantization").query_one(Checkbox)
        await pilot.click(box)
        await until(pilot, lambda: not app.draft.quantization.double_quantization)
        await priced(pilot, app)
        await pilot.click(next(key for key in setup(app).query(FooterKey) if key.action == "start"))
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 1)


@pytest.mark.long
async def test_the_models_say_whether_they_fit_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(23.5))
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        table = setup(app).query_one(DataTable)

        def cell(model: str, column: str) -> str:
            return str(table.get_cell(model, column).plain)

        await until(pilot, lambda: table.row_count == 5 and cell("Qwen/Qwen3-0.6B", "fit") == "fits")
        assert cell("starter", "fit") == "fits"
        assert cell("meta-llama/Llama-3.1-405B", "fit") == "too big"
        assert cell("starter", "size") == "bundled"
        assert cell("Qwen/Qwen3-0.6B", "size").startswith("~1.")
        assert "gated" in cell("meta-llama/Llama-3.1-8B", "licence")


async def test_a_model_is_searched_chosen_and_priced_and_nothing_is_downloaded() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await until(pilot, lambda: setup(app).query_one(DataTable).row_count == 5)
        await pilot.press("slash", *"llama-3.1-8b")
        await until(pilot, lambda: "cannot be" in text(app, "#model-status"))
        assert "hub cannot be searched" in text(app, "#model-status")
        assert setup(app).query_one(DataTable).row_count == 2
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.draft.model.id == "meta-llama/Llama-3.1-8B")
        await priced(pilot, app)
        assert price_of(app).estimate.stored_bytes > 4 * GIB
        assert "8.03 B parameters" in text(app, "#section-summary")


@pytest.mark.long
async def test_a_folder_is_found_by_its_path(tmp_path: Path) -> None:
    from qlora_tui.starter import MODEL_DIR

    (tmp_path / "mine").symlink_to(MODEL_DIR)
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        setup(app).query_one("#model-search", Input).value = f"{tmp_path}/"
        await until(pilot, lambda: "1 model folders" in text(app, "#model-status"))
        setup(app).query_one("#model-search", Input).focus()
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.draft.model.id == str(tmp_path / "mine"))


async def test_advice_makes_it_fit_with_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(8))
    app = workbench()
    app.draft = resolve(
        overrides=[
            "model.id=meta-llama/Llama-3.1-8B",
            "training.micro_batch_size=8",
            "training.max_length_tokens=2048",
            "training.gradient_checkpointing=on",
        ]
    )
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        panel = setup(app).query_one(FitPanel)
        await until(pilot, lambda: panel.advice)
        assert price_of(app).verdict.answer == "does not fit"
        assert "DOES NOT FIT" in text(app, "#fit-answer")
        edits = panel.advice[0].edits
        await pilot.press("f8")
        await until(pilot, lambda: app.draft.training.micro_batch_size < 8 or edits.keys().isdisjoint(_BATCH))
        await priced(pilot, app)
        assert price_of(app).verdict.answer in ("fits", "fits by paging")
        assert not panel.query_one(AdviceList).display


async def test_a_fault_of_the_estimator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("[b]by zero")

    monkeypatch.setattr(pricer, "price", broken)
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no estimate: ZeroDivisionError: [b]by zero" in text(app, "#fit-answer"))


async def test_each_card_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(4, 11, 11))
    app = workbench()
    app.draft = resolve(overrides=["model.id=meta-llama/Llama-3.1-8B", "training.gradient_checkpointing=on"])
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        assert text(app, "#fit-answer").startswith("FITS") and "Card 1" in text(app, "#fit-answer")
        lines = text(app, "#fit-cards").splitlines()
        assert lines[0] == "does not fit on Card 0, 4.00 GiB free"
        assert lines[2] == "fits on Card 2, 11.0 GiB free"
        bars = [text(app, "#fit-bar"), lines[1], lines[3]]
        assert [("┃" in bar, "·" in bar) for bar in bars] == [(False, True), (True, False), (False, True)]


_BATCH = {"training.micro_batch_size"}


async def test_targets_are_ticked_by_the_names_of_the_model() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("a")
        targets = setup(app).query_one("TargetList", OptionList)
        await until(pilot, lambda: targets.option_count == 7)
        targets.focus()
        await pilot.press("home", "space")
        await until(pilot, lambda: app.draft.adapter.target_modules != "all-linear")
        assert app.draft.adapter.target_modules == ["k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        await pilot.press("space")
        await until(pilot, lambda: app.draft.adapter.target_modules == "all-linear")


async def test_settings_say_what_they_cost() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("a")
        await until(pilot, lambda: "none: +" in field(app, "quantization.kind").explanation)
        box = field(app, "quantization.double_quantization").query_one(Checkbox)
        assert "X" in str(box.render()), "a tick is seen without colour"
        box.value = False
        await until(pilot, lambda: not app.draft.quantization.double_quantization)
        assert "X" not in str(box.render())
        assert "trained parameters" in field(app, "adapter.rank").explanation


async def test_a_narrow_terminal_shows_section_keys_and_the_warning_of_the_context() -> None:
    app = workbench()
    app.draft = resolve()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        await until(pilot, lambda: "max_length_tokens = 1,024 is beyond the 512 tokens" in text(app, "#fit-hint"))
        assert setup(app).query_one("#fit-hint").region.height == 1
        tabs = [str(entry.render()) for entry in setup(app).query(OutlineEntry)]
        assert tabs == ["m Model", "a Adapter", "d Data", "t Training"]


async def test_the_measured_quantization_error_of_the_model_is_shown_before_choosing() -> None:
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        await pilot.press("a")
        await until(pilot, lambda: "eval quant starter measures it" in text(app, "#quantization-error"))
        schemes = [
            {"scheme": "nf4", "relative_error": 0.0091, "perplexity": 12.5},
            {"scheme": "8-bit", "relative_error": 0.00012, "perplexity": 12.1},
        ]
        quantization_errors.write("starter", {"perplexity": 12.0, "schemes": schemes})
        setup(app).edit({"adapter.rank": "8"})
        told = "nf4 0.910%, perplexity 12.5; 8bit 0.012%, perplexity 12.1; exact weights: perplexity 12"
        await until(pilot, lambda: told in text(app, "#quantization-error"))
        setup(app).adopt("meta-llama/Llama-3.1-8B", None)
        await until(pilot, lambda: "not measured" in text(app, "#quantization-error"))


async def test_steps_tokens_and_time_are_shown_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: Speed(weight_s=1e-9, flop_s=1e-11, call_s=1e-4, op_s=1e-4))
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        await until(pilot, lambda: "245 steps, about 120,000 tokens, about " in text(app, "#fit-work"))
        assert "measured on single layers here" in text(app, "#fit-work")
        assert setup(app).query_one("#fit-work").region.height == 1
        assert text(app, "#fit-answer").startswith("FITS  ")
        setup(app).query_one(Pricer).count(Counted(app.draft, 90, 90, 0, 1_600, 80_000, 0))
        await until(pilot, lambda: "100 steps, 80,000 tokens, about " in text(app, "#fit-work"))


async def test_a_large_model_on_a_cpu_does_not_merely_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, machine(ram_gib=200))
    monkeypatch.setattr(speed, "measure", lambda *_: Speed(weight_s=1e-9, flop_s=1e-10, call_s=1e-4, op_s=1e-4))
    monkeypatch.setattr(catalogue, "ids", lambda: ("meta-llama/Llama-2-13b-hf", "Qwen/Qwen3-0.6B"))
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        table = setup(app).query_one(DataTable)
        await until(pilot, lambda: table.row_count == 3)
        await until(pilot, lambda: str(table.get_cell("meta-llama/Llama-2-13b-hf", "fit")) == "slow")
        setup(app).adopt("meta-llama/Llama-2-13b-hf", 4096)
        await until(pilot, lambda: text(app, "#fit-answer").startswith("FITS, BUT TAKES ABOUT "))
        assert "DAYS" in text(app, "#fit-answer")
        assert "off by a factor of three" in text(app, "#fit-work")


async def test_the_time_follows_an_earlier_run_of_the_same_model() -> None:
    finished = store.create(
        "earlier", presets.find("starter").config, {"model": "starter", "estimate": {"kind": "cpu"}}
    )
    lines = (
        step(number).model_copy(update={"tokens": 500 * number, "time_s": 2.0 * number, "seq": number})
        for number in range(1, 6)
    )
    finished.events.write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await until(pilot, lambda: "as run earlier took on this machine" in text(app, "#fit-work"))
        assert re.search(r"about (7\.9|8\.\d) min", text(app, "#fit-work"))


async def test_another_card_is_priced_and_the_run_is_not_estimated_for_it(
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("c")
        await until(pilot, lambda: app.screen.query("#ask-text"))
        await pilot.press(*"9 parrots", "enter")
        await until(pilot, lambda: app.screen.query(".-refused") or app.screen.has_class("-refused"))
        await pilot.press("home", "ctrl+k", *"2x24GB", "enter")
        await until(pilot, lambda: "each of 2 x 24 GB card (ddp, in another trainer)" in text(app, "#fit-answer"))
        await until(pilot, lambda: "no time is known for a card" in text(app, "#fit-work"))
        assert price_of(app).entry is None
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and bool(store.all_runs()))
    assert read_plan(store.all_runs()[0])["estimate"]["kind"] == "cpu"


async def test_own_presets_come_first_in_the_list() -> None:
    presets.write("zzz", "# Mine\n[adapter]\nrank = 3\n")
    names = [one.name for one in setup_summary.beginnings()]
    assert names[0] == "zzz" and names[1:3] == [one.name for one in presets.presets() if one.origin == "shipped"][:2]


async def test_memory_next_to_fields_uses_counted_rows() -> None:
    app = workbench()
    app.draft = resolve(overrides=["training.max_length_tokens=512", "training.micro_batch_size=8"])
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("t")
        limit = field(app, "training.max_length_tokens")
        await until(pilot, lambda: "256: −" in limit.explanation)
        assert "the longest allowed" in text(app, "#fit-more")
        before = price_of(app).estimate.full_bytes
        setup(app).query_one(Pricer).count(Counted(app.draft, 300, 90, 0))
        await until(pilot, lambda: "256: ±0; 1024: " in limit.explanation)
        assert "1024: ±0" not in limit.explanation, "longer rows were cut at 512 and are 300 tokens"
        assert "the longest in the data" in text(app, "#fit-more")
        assert price_of(app).estimate.row_tokens == 90
        assert price_of(app).estimate.full_bytes < before


async def test_the_run_shows_the_estimate_that_setup_showed(
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        setup(app).query_one(Pricer).count(Counted(app.draft, 90, 90, 0))
        await until(pilot, lambda: price_of(app).replayed and price_of(app).estimate.row_tokens == 90)
        shown = price_of(app)
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 1)
        stored = StoredEstimate.of(read_plan(store.all_runs()[0]))
        assert stored is not None
        assert (stored.full_bytes, stored.covers) == (shown.estimate.full_bytes, shown.covers)
        estimated = f"estimate {memory(shown.estimate.full_bytes)}"
        await until(pilot, lambda: any(estimated in str(panel.visual) for panel in app.screen.query(MemoryPanel)))


async def test_text_typed_ahead_of_a_dialog_goes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a slow connection: the presets are still read when the name is typed, whose letters are keys of Setup."""
    beginnings = setup_summary.beginnings

    def slow() -> Any:
        time.sleep(0.3)  # A slow disk: the names of the presets come after the keys.
        return beginnings()

    monkeypatch.setattr(setup_summary, "beginnings", slow)
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("ctrl+o", *"starter")
        await until(pilot, lambda: [line.value for line in app.screen.query(Input)] == ["starter"])
        await pilot.press("escape", "c", *"8GB")
        await until(pilot, lambda: [line.value for line in app.screen.query(Input)] == ["8GB"])


@pytest.mark.long
async def test_a_preset_is_loaded_and_another_one_saved() -> None:
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.screen.query("OptionList"))
        await pilot.press(*"starter", "enter")
        await until(pilot, lambda: app.draft_source == "preset starter")
        assert app.draft == presets.find("starter").config
        await type_into(pilot, app, "adapter.rank", "4")
        await until(pilot, lambda: app.draft.adapter.rank == 4)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen.query("#save"))
        await pilot.press("home", "ctrl+k", *"mine", "enter")
        await until(pilot, lambda: app.draft_source == "preset mine")
        assert presets.find("mine").config == app.draft


@pytest.mark.long
async def test_a_run_is_begun_from_another_one() -> None:
    store.create("earlier", resolve(overrides=["adapter.rank=7"]), {})
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.screen.query("OptionList"))
        await pilot.press(*"run earlier", "enter")
        await until(pilot, lambda: app.draft.adapter.rank == 7)
        assert app.draft_source == "run earlier"


@pytest.mark.long
async def test_the_command_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    app = workbench()
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "data.system_prompt", "it's [b]me[/b]")
        await until(pilot, lambda: app.draft.data.system_prompt)
        await pilot.press("ctrl+y")
        await until(pilot, lambda: app.screen.query("#command-text"))
        await pilot.press("c")
        words = shlex.split(copied[0])
        assert words[:2] == ["qlora-tui", "train"]
        assert "data.system_prompt=it's [b]me[/b]" in words
        await pilot.press("t")
        assert "[b]me[/b]" in copied[1]
        await pilot.press("escape")
        assert app.screen is setup(app)


async def test_the_screen_and_the_shown_command_start_the_same_run(
    command: Cli,  # noqa: F811
    fake_worker: Callable[[str], None],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tmp_path / "rows with spaces.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    monkeypatch.chdir(tmp_path)
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        for edits in (
            {"data.source": json.dumps("rows with spaces.jsonl")},
            {"adapter.target_modules": '["q_proj", "v_proj"]', "adapter.rank": "8"},
            {"training.warmup_steps": "0", "training.sample_prompts": '["what, me?", "[b]"]'},
            {"training.schedule": "cosine"},
            {"training.schedule": "constant"},
            {"data.system_prompt": "none of 'these'"},
        ):
            setup(app).post_message(ConfigEdited(edits))
        await until(pilot, lambda: app.draft.data.system_prompt)
        shown = setup(app).command.shell_lines()
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 1)
    first = store.all_runs()[0]
    words = shlex.split(" ".join(shown))[1:]
    command(*words, "--name", "typed", "--detach")
    assert store.find("typed").config.read_bytes() == first.config.read_bytes()
    assert str(rows) in first.config.read_text()


async def test_a_run_is_named_before_it_starts(
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    store.create("taken", resolve(), {})
    app = workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await priced(pilot, app)
        await pilot.press("r")
        line = setup(app).query_one("#run-name Input", Input)
        await until(pilot, lambda: line.has_focus and line.placeholder == "starter-1")
        await pilot.press(*"taken")
        await until(pilot, lambda: "already" in text(app, "#run-name .note"))
        await pilot.press("f9")
        await pilot.pause()
        assert len(store.all_runs()) == 1 and line.has_focus
        await pilot.press("home", "ctrl+k", *"mine")
        await until(pilot, lambda: "already" not in text(app, "#run-name .note"))
        assert setup(app).shell_lines[-1] == "--name mine"
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 2)
        assert {run.name for run in store.all_runs()} == {"taken", "mine"}
        await pilot.press("f3")
        await pilot.pause()
        assert line.value == "" and line.placeholder == "starter-1", "the next run is another one"


@pytest.mark.long
async def test_a_draft_from_a_preset_gives_a_short_command(
    command: Cli,  # noqa: F811
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    app = workbench()
    app.draft, app.draft_source = presets.find("starter").config, "preset starter"
    heard: list[Message] = []
    async with app.run_test(size=WIDE, message_hook=heard.append) as pilot:
        await priced(pilot, app)
        await type_into(pilot, app, "training.max_steps", "7")
        await until(pilot, lambda: app.draft.training.max_steps == 7)
        shown = " ".join(setup(app).command.shell_lines())
        assert shown == "qlora-tui train starter --set training.max_steps=7"
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "run" and len(store.all_runs()) == 1)
    started = next(one for one in heard if isinstance(one, StartRequested))
    assert started.preset == "starter" and not started.allow_download
    command(*shlex.split(shown)[1:], "--name", "typed", "--detach")
    assert store.find("typed").config.read_bytes() == store.all_runs()[1].config.read_bytes()


async def test_a_run_that_does_not_fit_asks_first(
    monkeypatch: pytest.MonkeyPatch,
    fake_worker: Callable[[str], None],  # noqa: F811
) -> None:
    give(monkeypatch, machine(ram_gib=0.2))
    app = workbench()
    async with app.run_test(size=WIDE) as pilot:
        await priced(pilot, app)
        await pilot.press("f9")
        await until(pilot, lambda: app.screen.query("#no"))
        assert app.focused is not None and app.focused.id == "no"
        await pilot.press("enter")
        await pilot.pause()
        assert not store.all_runs()
