"""The plot of curves: read, zoomed and moved by keys and by mouse, and drawn whatever the values are."""

from typing import Any

import pytest
from run_material import BEGAN_S, beginning, step, training, written
from run_screen import is_whole, place, until, view
from screen_material import words
from textual.pilot import Pilot

from qlora_tui.runs import events
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.curves import Curve


def drawn_columns(app: Workbench, character: str) -> list[int]:
    """Columns of the large plot in which a character is, from left to right."""
    from textual_hires_canvas import Canvas

    canvas = app.screen.query_one("#plot-loss #plot", Canvas)
    lines = [canvas.render_line(row).text for row in range(2, canvas.size.height - 2)]
    return sorted({column for line in lines for column, found in enumerate(line) if found == character})


async def at_rest(pilot: Pilot[None]) -> str:
    """The whole screen, once nothing on it changes any more."""
    earlier = ""
    while (now := pilot.app.export_screenshot(simplify=True)) != earlier:
        earlier = now
        await pilot.pause(0.1)
    return now


async def press_and_paint(pilot: Pilot[None], *keys: str) -> None:
    """Press keys, and wait for what they do to be on screen."""
    await pilot.press(*keys)
    await pilot.pause()


async def test_a_plot_is_read_zoomed_and_moved_by_keys() -> None:
    from qlora_tui.ui.widgets.curve_plot import CurvePlot

    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        plot = app.screen.query_one("#plot-loss", CurvePlot)
        plot.focus()
        await pilot.press("right")
        assert plot.cursor == 200
        assert "step 200  per step 0.5" in str(plot.border_subtitle)
        assert "eval 0.5458" in str(plot.border_subtitle)
        await pilot.press("plus", "plus")
        assert plot.window is not None and plot.window[0] > 50
        before = plot.window
        await pilot.press("shift+left")
        assert plot.window[0] < before[0]
        await pilot.press("y")
        assert "(log)" in str(plot.border_title)
        await pilot.press("0")
        assert (plot.window, plot.cursor) == (None, None)
        await pilot.press("p")
        await until(pilot, lambda: "learning rate" in str(plot.border_title))


async def test_a_plot_is_read_and_zoomed_by_mouse() -> None:
    from qlora_tui.ui.widgets.curve_plot import CurvePlot

    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        plot = app.screen.query_one("#plot-loss", CurvePlot)
        await pilot.hover("#plot-loss #plot", offset=(30, 5))
        await until(pilot, lambda: plot.cursor is not None)
        assert plot.cursor is not None and 80 < plot.cursor < 130
        assert f"step {plot.cursor:.0f}" in str(plot.border_subtitle)


async def test_the_cursor_moves_without_a_trace() -> None:
    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        app.screen.query_one("#plot-loss").focus()
        before = await at_rest(pilot)
        await press_and_paint(pilot, "right", "left", "left", "left")
        (column,) = drawn_columns(app, "│")
        await press_and_paint(pilot, "left")
        assert drawn_columns(app, "│") == [column - 1]
        await press_and_paint(pilot, "0")
        assert drawn_columns(app, "│") == []
        assert await at_rest(pilot) == before


@pytest.mark.parametrize("loss", [1.8651349057273352, 0.0, 1e-30])
async def test_the_first_step_is_drawn(loss: float) -> None:
    """Its smoothed value may differ from the value itself in the last digit."""
    written("one", [*beginning(), step(1).model_copy(update={"loss": loss, "grad_norm": loss})])
    app = Workbench(run="one")
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        await press_and_paint(pilot, "y")


async def test_the_frame_is_whole_at_any_size() -> None:
    written("one", [*beginning(), *training()])
    app = Workbench(run="one")
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
        for size in ((120, 33), (124, 37), (160, 45), (160, 44), (110, 30)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: corners(app) == "┏┓┗┛")
        for asked in ("A line that takes room from the plot.", ""):
            place(app).asked = asked
            await pilot.pause()
            await until(pilot, lambda: corners(app) == "┏┓┗┛")


def corners(app: Workbench) -> str:
    """What is in the four corners of the large plot."""
    from textual_hires_canvas import Canvas

    canvas = app.screen.query_one("#plot-loss #plot", Canvas)
    first, last = (canvas.render_line(row).text.strip() for row in (0, canvas.size.height - 1))
    return first[:1] + first[-1:] + last[:1] + last[-1:]


SMALL = (80, 24)


async def plotted(pilot: Pilot[None], app: Workbench) -> Any:
    """The large plot once it is drawn and has the focus."""
    await until(pilot, lambda: app.screen.query("#plot-loss.-drawn"))
    plot = app.screen.query_one("#plot-loss")
    plot.focus()
    await pilot.pause()
    return plot


async def test_a_small_terminal_has_axes_and_marks_for_what_happened() -> None:
    log = [*beginning(), *training(120)]
    log.append(events.Started(attempt=2, pid=0, process_start_s=BEGAN_S, resumed_from_step=100))
    written("one", [*log, *training()[125:]])
    app = Workbench(run="one")
    async with app.run_test(size=SMALL) as pilot:
        plot = await plotted(pilot, app)
        await at_rest(pilot)
        for name in ("per step", "smoothed", "eval", "checkpoint", "resumed"):
            assert name in str(plot.border_title)
        screen = words(app)
        assert all(label in screen for label in ("50", "100", "150", "200", "1.0", "3.0"))
        assert len(drawn_columns(app, "◆")) == 4, "an evaluation every 50 steps"
        assert len(drawn_columns(app, "┊")) == 1
        axis = next(line for line in screen.splitlines() if "┗" in line)
        assert axis.count("▲") == 2, "a checkpoint every 100 steps"


@pytest.mark.parametrize("size", [SMALL, (120, 35), (160, 45)])
async def test_no_axis_label_is_cut(size: tuple[int, int]) -> None:
    written("one", [*beginning(), *(step(number) for number in (1, 2, 40_000, 80_000))])
    app = Workbench(run="one")
    async with app.run_test(size=size) as pilot:
        await plotted(pilot, app)
        await at_rest(pilot)
        assert "80,000" in words(app)


async def test_a_constant_learning_rate_has_no_two_equal_ticks() -> None:
    written(
        "one", [*beginning(), *(step(number).model_copy(update={"learning_rate": 2e-4}) for number in range(1, 30))]
    )
    app = Workbench(run="one")
    async with app.run_test(size=SMALL) as pilot:
        plot = await plotted(pilot, app)
        await pilot.press("p")
        await until(pilot, lambda: "learning rate" in str(plot.border_title))
        await at_rest(pilot)
        labels = [line.split("┫")[0].strip("│ ") for line in words(app).splitlines() if "┫" in line]
        assert "2.0e-4" in labels
        assert len(set(labels)) == len(labels) > 2


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1e-9), (1, 1 + 1e-12), (2e-4, 2.01e-4), (0.999_999, 1), (-3, 12_345_678), (5, 5.000_1)]
)
def test_labels_of_one_axis_differ(low: float, high: float) -> None:
    from qlora_tui.ui.widgets.plot_canvas import NumberAxis

    ticks, labels = NumberAxis().get_ticks_and_labels(low, high)
    assert len(ticks) == len(labels)
    assert len(set(labels)) == len(labels)


def spiky(steps: int) -> list[events.Step]:
    """A long run with a loss of 1 except at two steps."""
    values = {1_001: 50.0, 7_654: 40.0}
    return [step(number).model_copy(update={"loss": values.get(number, 1.0)}) for number in range(1, steps + 1)]


async def test_a_spike_of_a_long_run_is_drawn_and_a_zoom_brings_every_step_back() -> None:
    written("one", [*beginning(), *spiky(9_000)])
    app = Workbench(run="one")
    async with app.run_test(size=SMALL) as pilot:
        plot = await plotted(pilot, app)
        await until(pilot, lambda: view(app) is not None and is_whole(place(app).view))
        await at_rest(pilot)
        assert {"40", "50"} & set(words(app).split()), "the axis reaches the spikes"
        assert lines_of(plot)["per step"].near(7_654) == (7_654, 40.0)
        for _ in range(12):
            await pilot.press("plus")
        assert plot.window is not None
        low, high = (round(end) for end in plot.window)
        await until(pilot, lambda: len(lines_of(plot)["per step"].within(low, high).steps) >= high - low)
        await pilot.press("0")
        await until(pilot, lambda: lines_of(plot)["per step"].steps[0] == 1)


def lines_of(plot: Any) -> dict[str, Curve]:
    """What a plot draws, by name."""
    return {line.name: line.curve for line in plot.drawn}
