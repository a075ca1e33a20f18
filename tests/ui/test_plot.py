"""The plot of curves: read, zoomed and moved by keys and by mouse, and drawn whatever the values are."""

import pytest
from run_material import beginning, step, training, written
from run_screen import place, until
from textual.pilot import Pilot

from qlora_tui.ui.app import Workbench


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
        assert "step 200  train 0.4" in str(plot.border_subtitle)
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
