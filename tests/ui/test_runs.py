"""Runs: sorted, filtered, renamed, tagged, deleted and brought back, compared, queued."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from run_material import beginning, finished, step, training, written
from run_screen import until
from screen_material import Settle, words
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Input, Static

from qlora_tui import paths
from qlora_tui.config.run import RunConfig
from qlora_tui.runs import checksums, damage, deleted, jobs, labels, queue, store
from qlora_tui.runs.shelf import Shelf
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import RunRequested
from qlora_tui.ui.screens.compare import Compare, Differences
from qlora_tui.ui.widgets import run_table
from qlora_tui.ui.widgets.confirm import Confirm
from qlora_tui.ui.widgets.queue_line import QueueLine
from qlora_tui.ui.widgets.run_table import RunTable


@pytest.fixture(autouse=True)
def three_runs(machine: object) -> Iterator[dict[str, RunFolder]]:
    yield {
        "alpha": written("alpha", [*beginning(), *training(50)]),
        "beta": written("beta", [*beginning(), *training(200), finished()]),
        "gamma": written("gamma", beginning()[:2]),
    }


async def at_runs(app: Workbench, pilot: Pilot[None], settle: Settle) -> RunTable:
    await pilot.press("f5")
    await settle(pilot)
    return app.screen.query_one(RunTable)


async def answer(pilot: Pilot[None], key: str, text: str) -> None:
    """Answer the question that a key asks."""
    await pilot.press(key)
    await pilot.pause()
    pilot.app.screen.query_one(Input).value = text
    await pilot.press("enter")


def names(table: RunTable) -> list[str]:
    return [str(row.key.value) for row in table.ordered_rows]


async def test_rows_sort_by_each_column_and_missing_values_come_last(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(120, 40)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.sort_column, table.descending = "loss", False
        assert names(table) == ["beta", "alpha", "gamma"]
        await pilot.press("S")
        assert names(table) == ["alpha", "beta", "gamma"]
        await pilot.click(table, offset=(4, 1))
        assert (table.sort_column, names(table)) == ("name", ["alpha", "beta", "gamma"])


async def test_the_filter_takes_words_and_escape_clears_it(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        await answer(pilot, "slash", "finished")
        assert names(table) == ["beta"]
        assert table.has_focus
        await pilot.press("escape")
        assert len(names(table)) == 3
        assert not app.screen.query_one(Input).display


async def test_a_long_list_comes_in_pages(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_table, "PAGE_ROWS", 2)
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        assert table.pages == 2
        first = names(table)
        await pilot.press("right_square_bracket")
        assert len(names(table)) == 1
        assert set(names(table)).isdisjoint(first)
        await pilot.press("right_square_bracket", "left_square_bracket")
        assert names(table) == first


async def test_enter_opens_a_run(settle: Settle) -> None:
    seen: list[Message] = []
    app = Workbench()
    async with app.run_test(size=(80, 24), message_hook=seen.append) as pilot:
        table = await at_runs(app, pilot, settle)
        wanted = table.current
        await pilot.press("enter")
        await pilot.pause()
        assert wanted in [message.name for message in seen if isinstance(message, RunRequested)]


async def test_a_run_is_renamed_and_tagged(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("beta"))
        await answer(pilot, "t", "best v2")
        await settle(pilot)
        assert labels.tags(store.find("beta")) == ("best", "v2")
        await answer(pilot, "e", "better")
        await settle(pilot)
        assert "better" in names(table)
        assert store.find("better").load_config()
        await answer(pilot, "e", "../better")
        await settle(pilot)
        assert "better" in names(table), "an illegal name changes nothing"


async def test_a_deleted_run_comes_back_and_the_bin_asks(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("beta"))
        await pilot.press("x")
        await settle(pilot)
        assert "beta" not in names(table)
        await pilot.press("u")
        await settle(pilot)
        assert "beta" in names(table)
        assert len(store.find("beta").events.read_text()) > 1000
        table.move_cursor(row=names(table).index("beta"))
        await pilot.press("x")
        await settle(pilot)
        await pilot.press("E")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        assert app.screen.focused is not None
        assert app.screen.focused.id == "no"
        await pilot.press("enter")
        await pilot.pause()
        assert [entry.name for entry in deleted.entries()] == ["beta"]
        await pilot.press("E", "y")
        await settle(pilot)
        assert deleted.entries() == []


async def test_a_run_that_was_deleted_before_a_restart_comes_back(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("beta"))
        await pilot.press("x")
        await settle(pilot)
    again = Workbench()
    async with again.run_test(size=(80, 24)) as pilot:
        table = await at_runs(again, pilot, settle)
        assert "1 in the bin: u restores beta" in words(again)
        await pilot.press("u")
        await settle(pilot)
        assert "beta" in names(table)
        await pilot.press("u")
        await settle(pilot)
    assert [told.message for told in again._notifications][-2:] == ["beta is restored.", "The bin is empty."]


async def test_marked_runs_are_compared_by_what_differs(settle: Settle, three_runs: dict[str, RunFolder]) -> None:
    text = three_runs["alpha"].config.read_text().replace("rank = 16", "rank = 32")
    three_runs["alpha"].config.write_text("".join(text.splitlines(keepends=True)[:-1]))  # without its checksum
    app = Workbench()
    async with app.run_test(size=(160, 45)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.marked = frozenset({"alpha", "beta"})
        await pilot.press("c")
        await settle(pilot)
        assert isinstance(app.screen, Compare)
        differing = app.screen.query_one(Differences)
        found = [list(map(str, differing.get_row_at(index))) for index in range(differing.row_count)]
        assert sorted(found[-1]) == ["16", "32", "adapter.rank"], "the one setting that differs comes last"
        rows = {
            label: dict(zip([str(column.label) for column in differing.ordered_columns][1:], values, strict=True))
            for label, *values in found
        }
        states = {name: jobs.replay(run) for name, run in three_runs.items()}
        for label, value in (
            ("training loss, mean of all steps", "mean_loss"),
            ("training loss, smoothed at the end", "smoothed_loss"),
        ):
            for name in ("alpha", "beta"):
                assert rows[label][name] == f"{getattr(states[name], value):.4g}"
        assert rows["tokens/s, mean of all steps"] == {"alpha": "2,345", "beta": "2,345"}
        assert rows["training time"]["beta"] == "1:02"
        assert rows["evaluation loss, last"]["beta"] == rows["evaluation loss, lowest"]["beta"]
        await pilot.press("v", "escape")
        assert not isinstance(app.screen, Compare)


async def test_long_names_leave_room_for_the_figures_of_each_run(
    settle: Settle, three_runs: dict[str, RunFolder]
) -> None:
    names = [f"long-{'x' * 70}-{ending}" for ending in ("one", "two")]
    for run, name in zip(("alpha", "beta"), names, strict=True):
        labels.rename(three_runs[run], name)
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(Compare(names))
        await settle(pilot)
        shown = words(app)
        assert shown.count("-one") >= 2 and shown.count("-two") >= 2, "in the headings and in the legend"
        assert "crashed" in shown and "finished" in shown


async def test_a_preset_is_queued_and_taken_out(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_running", lambda: None)
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        app.screen._queue("starter")  # type: ignore[attr-defined]
        await settle(pilot)
        await settle(pilot)
        assert [entry.name for entry in queue.waiting()] == ["starter-1"]
        assert app.screen.query_one(QueueLine).waiting == ("starter-1",)
        table.move_cursor(row=names(table).index("starter-1"))
        await pilot.press("w")
        await settle(pilot)
        assert queue.waiting() == []


async def test_a_preset_that_cannot_be_read_is_offered_with_the_reason(settle: Settle) -> None:
    paths.user_presets().mkdir(parents=True)
    (paths.user_presets() / "mine.toml").write_bytes(b"# Caf\xe9\n")
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await at_runs(app, pilot, settle)
        await pilot.press("a")
        await pilot.press(*"mine")
        while "mine.toml" not in words(app):
            await pilot.pause(0.01)
        assert "UTF-8" in words(app)


async def test_a_refused_name_stays_to_be_corrected(settle: Settle, three_runs: dict[str, RunFolder]) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("alpha"))
        with jobs.hold(three_runs["alpha"]):
            await answer(pilot, "e", "other")
            await settle(pilot)
            assert "alpha is running" in words(app)
        for refused, reason in (("beta", "'beta' exists already"), ("two words", "not a legal run name")):
            app.screen.query_one(Input).value = refused
            await pilot.press("enter")
            await settle(pilot)
            assert reason in words(app)
            assert (app.screen.query_one(Input).value, app.screen.query_one(Input).has_focus) == (refused, True)
        app.screen.query_one(Input).value = "other"
        await pilot.press("enter")
        await settle(pilot)
        assert sorted(names(table)) == ["beta", "gamma", "other"]


async def test_refused_tags_stay_to_be_corrected(settle: Settle) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("beta"))
        await answer(pilot, "t", "good a,b")
        await settle(pilot)
        assert "'a,b' is not a tag" in words(app)
        assert app.screen.query_one(Input).value == "good a,b"
        await pilot.press("escape")
        assert labels.tags(store.find("beta")) == ()


async def test_a_long_name_leaves_room_for_loss_and_tags(settle: Settle, three_runs: dict[str, RunFolder]) -> None:
    long = "long-" + "x" * 70 + "-last"
    labels.rename(three_runs["beta"], long)
    labels.set_tags(store.find(long), ["rank16", "good"])
    for size in ((80, 24), (120, 40), (160, 45)):
        app = Workbench()
        async with app.run_test(size=size) as pilot:
            table = await at_runs(app, pilot, settle)
            assert table.virtual_size.width <= table.size.width
            row = next(line for line in words(app).splitlines() if "✓ finished" in line)
            assert "long-x" in row and "-last" in row
            for shown in ("200/200", "0.439", "rank16 good"):
                assert shown in row, f"{shown} at {size}"
            table.move_cursor(row=names(table).index(long))
            await pilot.pause()
            below = str(app.screen.query_one("#run-detail", Static).visual)
            assert long in below


async def test_no_runs_is_shown_only_after_reading(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, read = threading.Event(), Shelf.read

    def slow(shelf: Shelf) -> object:
        assert may_go_on.wait(20)
        return read(shelf)

    monkeypatch.setattr(Shelf, "read", slow)
    for place, waits in (("runs", "Reading the runs"), ("home", "Reading the runs")):
        may_go_on.clear()
        app = Workbench(place=place)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert waits in words(app)
            assert "No runs yet" not in words(app)
            may_go_on.set()
            await settle(pilot)
            assert waits not in words(app)


async def test_a_waiting_run_is_queued_wherever_it_is_shown(settle: Settle) -> None:
    store.create("next", RunConfig(), {"model": "starter"})
    queue.add("next")
    app = Workbench()
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(pilot)
        assert "◔ queued" in words(app), "on its card"
        table = await at_runs(app, pilot, settle)
        assert "◔ queued" in words(app)
        table.move_cursor(row=names(table).index("next"))
        await pilot.press("w")
        await settle(pilot)
        assert "○ created" in words(app)
        await pilot.press("w")
        await settle(pilot)
    assert [told.message for told in app._notifications][-2:] == [
        "next was removed from the queue; its folder is kept.",
        "next is not in the queue.",
    ]


async def test_a_slow_disk_holds_up_no_key(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, delete = threading.Event(), deleted.delete

    def slow(run: RunFolder) -> None:
        assert may_go_on.wait(20)
        delete(run)

    monkeypatch.setattr(deleted, "delete", slow)
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("beta"))
        await pilot.press("x", "u", "slash")
        assert app.screen.query_one(Input).display
        assert "beta" in names(table)
        may_go_on.set()
        await settle(pilot)
        assert [told.message for told in app._notifications][-1] == "beta is restored."


def damage_settings(run: RunFolder) -> None:
    run.config.write_text(run.config.read_text(encoding="utf-8").replace("seed = 42", "seed = 43"), encoding="utf-8")


def damage_adapter(run: RunFolder) -> None:
    """Flip a bit of the weights of an adapter with a list of checksums."""
    run.adapter.mkdir()
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(bytes(1000))
    checksums.write_list(run.adapter, damage.ADAPTER_LIST, leave_out=lambda _: False)
    weights.write_bytes(bytes(999) + b"\1")


async def test_damaged_run_is_shown_in_the_table(three_runs: dict[str, RunFolder], settle: Settle) -> None:
    damage_settings(three_runs["alpha"])
    damage_adapter(three_runs["beta"])
    app = Workbench()
    async with app.run_test(size=(160, 40)) as pilot:
        table = await at_runs(app, pilot, settle)
        table.move_cursor(row=names(table).index("alpha"))
        await settle(pilot)
        assert "crashed, damaged" in words(app)
        assert "run.toml is damaged" in words(app)
        table.move_cursor(row=names(table).index("beta"))
        while "adapter_model.safetensors is damaged" not in words(app):
            await pilot.pause(0.02)
        assert "Train again with the same settings" in words(app)
        table.letters = "damaged"
        assert names(table) == ["alpha"]


async def test_damaged_run_is_shown_in_run(three_runs: dict[str, RunFolder]) -> None:
    damage_adapter(three_runs["beta"])
    damage_settings(three_runs["beta"])
    app = Workbench(run="beta")
    async with app.run_test(size=(160, 40)) as pilot:
        for said in ("adapter_model.safetensors is damaged", "run.toml is damaged", "Finished: 200 steps"):
            await until(pilot, lambda said=said: said in words(app))  # type: ignore[misc]


async def test_zooming_the_comparison_reads_the_log_again(settle: Settle) -> None:
    """Of a long run only buckets are kept; in view of a few steps you should see each of them."""
    written("long", [*beginning(9_000), *(step(number) for number in range(1, 9_001)), finished(9_000)])
    written("short", [*beginning(), *training(100), finished(100)])
    app = Workbench(place="runs")
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(pilot)
        app.push_screen(Compare(["long", "short"]))
        await until(pilot, lambda: app.screen.query("CurvePlot.-drawn"))
        plot: Any = app.screen.query_one("#overlaid")
        coarse = plot.drawn[0].curve.within(4_000, 4_200)
        plot.window = (4_000, 4_200)
        await until(pilot, lambda: len(plot.drawn[0].curve.within(4_000, 4_200).steps) > len(coarse.steps))
        assert plot.drawn[0].curve.within(4_000, 4_200).steps[:202] == tuple(range(3_999, 4_201))
        assert [line.name for line in plot.drawn] == ["long", "short"]
        await pilot.press("v")
        await pilot.pause()
        assert plot.drawn[1].curve.steps == (50, 100)
