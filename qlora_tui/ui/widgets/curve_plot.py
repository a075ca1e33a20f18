"""A plot of curves over steps: zoom, pan, a cursor that reads values, log scale, colours of the theme.

It imports numpy through the plotting library, so it is itself imported late, in a thread.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Leave, MouseMove, MouseScrollDown, MouseScrollUp
from textual.markup import escape
from textual.message import Message
from textual.reactive import var
from textual.widget import Widget
from textual.widgets import Static
from textual_plot import HiResMode

from qlora_tui.ui.curves import decimated
from qlora_tui.ui.widgets.plot_canvas import LogAxis, NumberAxis, PlotCanvas, StepAxis
from qlora_tui.ui.widgets.plot_line import Line, Mark, Part, PlotZoomed, drawn_style, height, rich_name

_ZOOM = 1.5
_PAN_SHARE = 0.2
_MARGIN_SHARE = 0.05
_LEAST_SPREAD = 1e-9
"""Values that are closer together than this, as a share of themselves, are the same: an axis cannot tell them apart."""

_LEFT_COLUMNS = 9
_FRAME_COLUMNS = 2


class CurvePlot(Container, can_focus=True):
    """Draws the lines it was given by `show`. The part in view follows the run until the user zooms or pans."""

    DEFAULT_CSS = """
    CurvePlot {
        layout: vertical; height: 1fr;
        .plot-empty { color: $foreground 60%; height: 1; }
        PlotWidget { display: none; }
        &.-drawn PlotWidget { display: block; }
        &.-drawn .plot-empty { display: none; }
    }
    CurvePlot PlotWidget > .plot--axis { color: $foreground 40%; }
    CurvePlot PlotWidget > .plot--tick { color: $foreground 70%; text-style: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom(1)", "Zoom in", id="plot.zoom-in", tooltip="Show fewer steps", show=False),
        Binding("minus", "zoom(-1)", "Zoom out", id="plot.zoom-out", tooltip="Show more steps", show=False),
        Binding("shift+left,H", "pan(-1)", "Earlier", id="plot.earlier", tooltip="Earlier steps", show=False),
        Binding("shift+right,L", "pan(1)", "Later", id="plot.later", tooltip="Later steps", show=False),
        Binding("left,h", "cursor(-1)", "Cursor left", id="plot.left", tooltip="Read values further left", show=False),
        Binding(
            "right,l", "cursor(1)", "Cursor right", id="plot.right", tooltip="Read values further right", show=False
        ),
        Binding("0", "reset", "All steps", id="plot.reset", tooltip="Show all steps, no cursor", show=False),
        Binding("y", "log_scale", "Log scale", id="plot.log", tooltip="Logarithmic values, and back", show=False),
    ]
    HELP = """## Plot

`+` and `-` zoom, `shift+left` and `shift+right` pan, `left` and `right` move the cursor that reads values, `y` is the
logarithmic scale, `0` shows everything again. The mouse reads values, its wheel zooms, dragging pans.
"""

    class Drawn(Message):
        """The plot was drawn with new values."""

    log_scale: var[bool] = var(False)
    cursor: var[float | None] = var(None)
    """Step at which values are read."""

    window: var[tuple[float, float] | None] = var(None)
    """First and last step in view; None is all of them."""

    def __init__(self, title: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._title = title
        self._lines: list[Line] = []
        self._marks: list[Mark] = []
        self._part: Part | None = None
        self._said = ("", "")

    def compose(self) -> ComposeResult:
        yield Static("The curve begins with the first step.", classes="plot-empty")
        yield PlotCanvas()

    def on_mount(self) -> None:
        canvas = self._canvas
        canvas.margin_top, canvas.margin_bottom, canvas.margin_left = 0, 1, _LEFT_COLUMNS
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def show(self, title: str, lines: list[Line], marks: list[Mark] | None = None, part: Part | None = None) -> None:
        """Set the lines and marks to draw; the lines of `part` are used for the visible part."""
        self._title, self._lines, self._marks, self._part = title, lines, marks or [], part
        self.set_class(any(line.curve.steps for line in lines), "-drawn")
        self._draw()

    def watch_log_scale(self) -> None:
        self._draw()

    def watch_cursor(self) -> None:
        self._point()

    def watch_window(self) -> None:
        self._draw()
        self.post_message(PlotZoomed())

    @property
    def _canvas(self) -> Any:
        return self.query_one(PlotCanvas)

    @property
    def _whole(self) -> tuple[float, float]:
        """First and last step there is."""
        ends = [end for line in self._lines if line.curve.steps for end in (line.curve.steps[0], line.curve.steps[-1])]
        low, high = (min(ends), max(ends)) if ends else (0, 1)
        return low, max(high, low + 1)

    @property
    def drawn(self) -> Sequence[Line]:
        """Return the lines with the most detail for the visible part."""
        part, window = self._part, self.window
        covers = part is not None and window is not None and part.low <= window[0] and window[1] <= part.high
        return part.lines if part is not None and covers else self._lines

    def _draw(self) -> None:
        if not self.is_mounted or not self.size or not self.has_class("-drawn"):
            return
        low, high = self.window or self._whole
        columns = max(self.content_size.width - _LEFT_COLUMNS - _FRAME_COLUMNS, 1)
        canvas, values = self._canvas, list[float]()
        canvas.clear()
        for line in self.drawn:
            curve = decimated(line.curve.within(low, high), columns)
            heights = [height(value, self.log_scale) for value in curve.values]
            kept = [(x, y) for x, y in zip(curve.steps, heights, strict=True) if y is not None]
            if not kept:
                continue
            values += [y for x, y in kept if low <= x <= high]
            self._plot(canvas, line, kept)
        for mark in self._marks:
            canvas.mark(mark.steps, mark.sign, rich_name(self.app.theme_variables[mark.variable]), tall=mark.tall)
        self._frame(canvas, low, high, values)
        canvas.draw(self._cursor_in_view, self._cursor_style)
        self._say()
        self.post_message(self.Drawn())

    def _plot(self, canvas: Any, line: Line, points: list[tuple[int, float]]) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        style = drawn_style(line, self.app.theme_variables)
        if line.style == "dots":
            canvas.scatter(xs, ys, marker="◆", marker_style=style)
        elif line.style == "faint":  # a line through noise would take most of the time of a drawing
            canvas.scatter(xs, ys, marker_style=style, hires_mode=HiResMode.BRAILLE)
        else:
            canvas.plot(xs, ys, line_style=style, hires_mode=HiResMode.BRAILLE)

    def _frame(self, canvas: Any, low: float, high: float, values: list[float]) -> None:
        """Limits and ticks."""
        bottom, top = (min(values), max(values)) if values else (0.0, 1.0)
        spread = top - bottom
        if spread <= abs(top) * _LEAST_SPREAD:
            spread = abs(top) or 1.0
            bottom, top = bottom - spread / 2, top + spread / 2
        room = spread * _MARGIN_SHARE
        canvas.set_y_formatter(LogAxis() if self.log_scale else NumberAxis())
        canvas.set_x_formatter(StepAxis())
        canvas.set_xlimits(low, high + (high - low) / max(self.size.width, 1))  # the last point is not on the frame
        canvas.set_ylimits(bottom - room, top + room)

    def _point(self) -> None:
        """Show where the cursor is and what it reads."""
        if not self.is_mounted:
            return
        self._canvas.point_at(self._cursor_in_view, self._cursor_style)
        self._say()

    @property
    def _cursor_in_view(self) -> float | None:
        low, high = self.window or self._whole
        return self.cursor if self.cursor is not None and low <= self.cursor <= high else None

    @property
    def _cursor_style(self) -> str:
        return rich_name(self.app.theme_variables["accent"])

    def _say(self) -> None:
        """The legend in the title, the values under the cursor in the subtitle."""
        lines = [(line.name, line.variable, line.sign) for line in self._lines if line.curve.steps]
        marks = [(mark.name, mark.variable, mark.sign) for mark in self._marks if mark.steps]
        legend = "  ".join(
            f"[${variable}]{sign}[/] {escape(name)}" for name, variable, sign in (*lines, *marks) if name
        )
        scale = " (log)" if self.log_scale else ""
        said = f"{self._title}{scale}  {legend}".rstrip(), self._read()
        if said != self._said:  # either of them paints the whole plot again
            self._said = self.border_title, self.border_subtitle = said

    def _read(self) -> str:
        if self.cursor is None:
            return ""
        lines = self.drawn
        found = [(line, line.curve.near(self.cursor)) for line in lines if line.name or len(lines) == 1]
        parts = [
            f"{line.name or self._title} {near[1]:.4g}" + _at(near[0], self.cursor) for line, near in found if near
        ]
        return "  ".join([f"step {self.cursor:,.0f}", *parts])

    def action_zoom(self, direction: int) -> None:
        """Zoom around the cursor, or around the middle."""
        low, high = self.window or self._whole
        center = self.cursor if self.cursor is not None and low <= self.cursor <= high else (low + high) / 2
        self._zoom(center, direction)

    def _zoom(self, center: float, direction: int) -> None:
        low, high = self.window or self._whole
        factor = 1 / _ZOOM if direction > 0 else _ZOOM
        self._look_at(center - (center - low) * factor, center + (high - center) * factor)

    def action_pan(self, direction: int) -> None:
        """Move the window by a fifth of its width."""
        low, high = self.window or self._whole
        self._pan((high - low) * _PAN_SHARE * direction)

    def _pan(self, steps: float) -> None:
        first, last = self._whole
        low, high = self.window or (first, last)
        steps = min(max(steps, first - low), last - high)
        self._look_at(low + steps, high + steps)

    def _look_at(self, low: float, high: float) -> None:
        """Set the window: inside the run, and not narrower than two steps."""
        first, last = self._whole
        low, high = max(low, first), min(high, last)
        if high - low >= min(2, last - first):
            self.window = None if (low, high) == (first, last) else (low, high)

    def action_cursor(self, direction: int) -> None:
        """Move the cursor by one column, or by one step where a step is wider."""
        low, high = self.window or self._whole
        width = max(1.0, (high - low) / max(self.content_size.width - _LEFT_COLUMNS, 1))
        at = high if self.cursor is None else self.cursor + direction * width
        self.cursor = round(min(max(at, low), high))

    def action_reset(self) -> None:
        """Everything in view, no cursor."""
        self.window = None
        self.cursor = None

    def action_log_scale(self) -> None:
        """Logarithmic values, and back."""
        self.log_scale = not self.log_scale

    def on_mouse_move(self, event: MouseMove) -> None:
        step = self._step_at(event.screen_x)
        if step is None:
            return
        if event.button:
            low, high = self.window or self._whole
            self._pan(-event.delta_x * (high - low) / max(self.content_size.width - _LEFT_COLUMNS, 1))
        else:
            self.cursor = step

    def on_leave(self, event: Leave) -> None:
        if event.node is self:
            self.cursor = None

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: MouseScrollUp | MouseScrollDown, direction: int) -> None:
        step = self._step_at(event.screen_x)
        if step is not None:
            event.stop()
            self._zoom(step, direction)

    def _step_at(self, screen_x: int) -> float | None:
        """The step in the column of the screen, or None beside the curves."""
        area: Widget = self._canvas.query_one("#plot")
        column = screen_x - area.region.x - 1
        columns = area.size.width - _FRAME_COLUMNS
        if not 0 <= column < columns:
            return None
        low, high = self.window or self._whole
        return round(low + (column + 0.5) / columns * (high - low))


def _at(step: int, cursor: float) -> str:
    return "" if abs(step - cursor) < 1 else f" (step {step:,})"
