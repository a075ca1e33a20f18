"""A slider for a number: changed by keys, wheel or mouse, or typed."""

from contextlib import suppress
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click, Key, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

_NUMBER = frozenset("0123456789.,")
_LONGEST = 6


class Slider(Widget, can_focus=True):
    """One line: name, bar, value. A typed number is applied with Enter or when the focus leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "Less", id="slider.less", tooltip="One step down", show=False),
        Binding("right,l", "step(1)", "More", id="slider.more", tooltip="One step up", show=False),
        Binding("enter", "take", "Set", id="slider.take", tooltip="Set the typed number", show=False),
        Binding("backspace", "erase", "Erase", id="slider.erase", tooltip="Delete the last digit", show=False),
        Binding("escape", "forget", "Forget", id="slider.forget", tooltip="Discard the typed number", show=False),
    ]
    DEFAULT_CSS = """
    Slider {
        height: 1; padding: 0 1;
        &:focus { background: $primary 25%; }
    }
    """

    value: reactive[float] = reactive(0.0)
    typed: reactive[str] = reactive("")
    """Typed digits that are not applied yet."""

    class Moved(Message):
        """The value was changed by a person."""

        def __init__(self, slider: "Slider", value: float) -> None:
            super().__init__()
            self.slider = slider
            self.value = value

        @property
        def control(self) -> "Slider":
            return self.slider

    def __init__(
        self,
        name: str,
        low: float,
        high: float,
        step: float,
        value: float,
        *,
        tooltip: str,
        widget_id: str | None = None,
    ) -> None:
        super().__init__(id=widget_id)
        self.label = name
        self.low, self.high, self.step = low, high, step
        self.tooltip = tooltip
        self.set_reactive(Slider.value, value)

    def validate_value(self, value: float) -> float:
        """Within the ends, on a step."""
        steps = round((value - self.low) / self.step)
        return round(min(self.high, max(self.low, self.low + steps * self.step)), 6)

    def render(self) -> Content:
        name, number = f"{self.label:<18.18} ", f" {self.typed}_" if self.typed else f" {self.value:g}"
        room = max(1, self._bar_width)
        filled = round(room * (self.value - self.low) / (self.high - self.low))
        return Content.assemble(
            (name, "$foreground 70%"), ("━" * filled, "$primary"), ("─" * (room - filled), "$foreground 30%"), number
        )

    @property
    def _bar_width(self) -> int:
        return self.content_size.width - 19 - 6

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Digits and the decimal point are input, not keys of the app."""
        return character is not None and character in _NUMBER

    def on_key(self, event: Key) -> None:
        if event.character is not None and event.character in _NUMBER:
            event.stop()
            if len(self.typed) < _LONGEST:
                self.typed += event.character.replace(",", ".")

    def on_blur(self) -> None:
        self.action_take()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing can be deleted before anything was typed."""
        return bool(self.typed) if action in ("take", "erase", "forget") else True

    def action_take(self) -> None:
        """Set the typed number, or the nearest one on the slider."""
        typed, self.typed = self.typed, ""
        with suppress(ValueError):
            self._move(float(typed))

    def action_erase(self) -> None:
        """Delete the last digit."""
        self.typed = self.typed[:-1]

    def action_forget(self) -> None:
        """Discard the typed number."""
        self.typed = ""

    def action_step(self, direction: int) -> None:
        """Move by one step."""
        self.typed = ""
        self._move(self.value + direction * self.step)

    def on_click(self, event: Click) -> None:
        """Go where the bar was clicked."""
        share = (event.x - self.gutter.left - 19) / max(1, self._bar_width)
        self._move(self.low + share * (self.high - self.low))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.action_step(1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.action_step(-1)

    def _move(self, value: float) -> None:
        before = self.value
        self.value = value
        if self.value != before:
            self.post_message(self.Moved(self, self.value))
