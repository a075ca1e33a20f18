"""A bar of how much of something is used, with its label and its numbers, in one line."""

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

_TIGHT = 0.9
_LEAST_BAR = 6


class Meter(Widget):
    """`share` of the bar is filled; the numbers beside it say the same to who sees no bar."""

    DEFAULT_CSS = "Meter { height: 1; width: 1fr; }"

    share: reactive[float] = reactive(0.0)
    """Between 0 and 1."""
    numbers: reactive[str] = reactive("")

    def __init__(self, label: str, share: float = 0.0, numbers: str = "", *, label_width: int = 0) -> None:
        super().__init__()
        self._label = label.ljust(label_width)
        self.set_reactive(Meter.share, share)
        self.set_reactive(Meter.numbers, numbers)

    def render(self) -> Content:
        """Label, bar, numbers; the bar takes what is left of the line."""
        width = self.size.width - len(self._label) - len(self.numbers) - 2
        parts = [Content(f"{self._label} ")]
        if width >= _LEAST_BAR:
            full = round(max(0.0, min(1.0, self.share)) * width)
            parts.append(Content.styled("█" * full, "$warning" if self.share > _TIGHT else "$vram"))
            parts.append(Content.styled("░" * (width - full), "$foreground 30%"))
            parts.append(Content(" "))
        return Content.assemble(*parts, self.numbers)
