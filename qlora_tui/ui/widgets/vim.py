"""Movement with j k h l g G, for what is moved through: lists, tables, trees, logs. Never for text fields."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.dom import DOMNode

_MOVES = {
    "down": ("action_cursor_down", "action_scroll_down"),
    "up": ("action_cursor_up", "action_scroll_up"),
    "left": ("action_cursor_left", "action_scroll_left"),
    "right": ("action_cursor_right", "action_scroll_right"),
    "first": ("action_first", "action_scroll_top", "action_scroll_home"),
    "last": ("action_last", "action_scroll_bottom", "action_scroll_end"),
}
"""For each movement the widget's own actions, of which the first one that it has is taken."""


class VimKeys(DOMNode):
    """Named last among the bases, so that the style sheet follows the widget: `class RunTable(DataTable, VimKeys)`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "vim('down')", "Down", show=False, id="list.down", tooltip="One line down"),
        Binding("k", "vim('up')", "Up", show=False, id="list.up", tooltip="One line up"),
        Binding("h", "vim('left')", "Left", show=False, id="list.left", tooltip="To the left"),
        Binding("l", "vim('right')", "Right", show=False, id="list.right", tooltip="To the right"),
        Binding("g", "vim('first')", "First", show=False, id="list.first", tooltip="To the beginning"),
        Binding("G", "vim('last')", "Last", show=False, id="list.last", tooltip="To the end"),
    ]

    def action_vim(self, move: str) -> None:
        """Move as the widget's own key would."""
        for name in _MOVES[move]:
            action = getattr(self, name, None)
            if action is not None:
                action()
                return
