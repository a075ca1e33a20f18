"""A line or a few about a run: drawn again only when what it says has changed."""

from typing import Any, ClassVar

from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from qlora_tui.ui.run_view import RunView


class RunStatic(Static):
    """Shows `content_of` the view. Subclasses say what that is; their height is fixed by the style sheet or `auto`."""

    WRAPS: ClassVar[bool] = False
    """Whether a long line is continued on the next one, so that any new text may need another height."""

    view: var[RunView | None] = var(None)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._said = Content("")

    def watch_view(self) -> None:
        self._say()

    def on_resize(self) -> None:
        self._say()

    def _say(self) -> None:
        content = self.content_of(self.view) if self.view is not None else Content("")
        if not content.is_same(self._said):
            grows = content.plain.count("\n") != self._said.plain.count("\n")
            self.update(content, layout=grows or self.WRAPS)
            self._said = content

    def content_of(self, view: RunView) -> Content:
        """What to show of a run."""
        raise NotImplementedError
