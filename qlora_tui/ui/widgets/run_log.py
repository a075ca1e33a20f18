"""The raw output of the worker, as it comes."""

from textual.reactive import var
from textual.widgets import Log

from qlora_tui.ui.log_tail import KEPT_LINES
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.vim import VimKeys


class RunLog(Log, VimKeys):
    """Appends the lines that are new since the last view; stays where it is while one reads further up."""

    BORDER_TITLE = "Log"
    HELP = "## Log\n\nWhat the worker and its libraries printed: `stdio.log` in the run's folder."

    view: var[RunView | None] = var(None)

    def __init__(self, **kwargs: object) -> None:
        super().__init__(max_lines=KEPT_LINES, **kwargs)  # type: ignore[arg-type]
        self._source: tuple[str, int] = ("", 0)

    def watch_view(self, view: RunView | None) -> None:
        if view is None or view.status == "reading":
            return
        name, seen = self._source
        end = view.log.first + len(view.log.lines)
        if view.name != name or end < seen:
            self.clear()
            seen = 0
        if end > seen:
            self.write_lines(view.log.lines[max(0, seen - view.log.first) :], scroll_end=self.is_vertical_scroll_end)
        self._source = (view.name, end)
