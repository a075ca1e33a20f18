"""The runs that wait for their turn, in one line."""

from textual.reactive import reactive
from textual.widgets import Static

from qlora_tui.terminal import printable


class QueueLine(Static):
    """Says what waits, and what for; nothing when nothing waits."""

    DEFAULT_CSS = """
    QueueLine { height: auto; color: $text-accent; padding: 0 1; display: none; }
    QueueLine.-waiting { display: block; }
    """
    waiting: reactive[tuple[str, ...]] = reactive((), toggle_class="-waiting")
    obstacle: reactive[str] = reactive("")
    """Why the first one does not start yet."""

    def render(self) -> str:
        """Such as "queue: a, b (one is running)"."""
        reason = f" ({self.obstacle})" if self.obstacle else ""
        return printable(f"queue: {', '.join(self.waiting)}{reason}", one_line=True).replace("[", "\\[")
