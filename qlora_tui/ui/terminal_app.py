"""Base of both apps: internal errors, signals, rendering without colours, and custom theme variables."""

import asyncio
import os
import signal
import threading
from typing import Any, TypeVar

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.css.query import NoMatches
from textual.filter import DimFilter, LineFilter, Monochrome, NoColor, monochrome_style
from textual.worker import WorkerFailed

from qlora_tui.ui import themes

ReturnType = TypeVar("ReturnType")

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_LONGEST_END_S = 5.0
"""A closed terminal accepts no output, for which Textual's writer would wait without end."""

_PLAIN = Style.from_color(RichColor.default(), RichColor.default())


class Colourless(LineFilter):
    """Replace colours by greys; in a theme of the terminal's own colours, coloured backgrounds by reverse video.

    Textual's filter requires a style for every segment, and makes the terminal's own colours black.
    """

    def __init__(self, app: App[Any]) -> None:
        super().__init__()
        self._app = app

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same text without colours."""
        convert = _reversed if self._app.native_ansi_color else monochrome_style
        return [Segment(text, style and convert(style), control) for text, style, control in segments]


def _reversed(style: Style) -> Style:
    marked = style.bgcolor is not None and not style.bgcolor.is_default
    return style + _PLAIN + Style(reverse=True) if marked and not style.reverse else style + _PLAIN


class Undimmed(DimFilter):
    """Textual's replacement of dim text by a mixed colour, where there are two colours to mix."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same text, mixed where possible."""
        return [super(Undimmed, self).apply([each], background)[0] if _mixable(each, background) else each
                for each in segments]  # fmt: skip


def _mixable(segment: Segment, background: Color) -> bool:
    style = segment.style
    if style is None or style.color is None or style.bgcolor is None:
        return False
    behind = background.rich_color if style.bgcolor.is_default else style.bgcolor
    return style.color.triplet is not None and behind.triplet is not None


class TerminalApp(App[ReturnType]):
    """An app that sets `crash` and exits with return code 1 on an internal error, without printing it."""

    def __init__(self) -> None:
        super().__init__()
        self.crash: BaseException | None = None
        """The exception that ended the app."""
        self._filters = [self._safe(each) for each in self._filters]

    def on_load(self) -> None:
        """End with return code 128 + N on signal N. Signals that are ignored, as under nohup, stay ignored.

        An exception raised by a handler of the `signal` module would interrupt the event loop while it holds locks.
        """
        loop = asyncio.get_running_loop()
        for number in _ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._end_by, number)

    def _end_by(self, number: int) -> None:
        last_resort = threading.Timer(_LONGEST_END_S, os._exit, [128 + number])
        last_resort.daemon = True
        last_resort.start()
        self.exit(return_code=128 + number)

    def _safe(self, each: LineFilter) -> LineFilter:
        if isinstance(each, Monochrome | NoColor):
            return Colourless(self)
        return Undimmed() if isinstance(each, DimFilter) else each

    def begin_with(self, theme: str) -> None:
        """Set the theme before the first frame. Setting it later would style every widget twice."""
        self.set_reactive(TerminalApp.theme, theme)
        dark = self.current_theme.dark
        self.set_classes(f"{self.DEFAULT_CLASSES} -theme-{theme} {'-dark-mode' if dark else '-light-mode'}")
        self.stylesheet.set_variables(self.get_css_variables())
        self._refresh_truecolor_filter(self.ansi_theme)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the custom variables for themes that lack them."""
        return themes.stand_ins(self.current_theme)

    def _handle_exception(self, error: Exception) -> None:
        """End the app. Textual would print a traceback with every local variable, and forget the return code.

        A widget that is mounted while the app ends may miss children that are already removed: that is no crash.
        """
        if self._exit and isinstance(error, NoMatches):
            return
        self._return_code = 1
        if self.crash is None:
            self.crash = error.error if isinstance(error, WorkerFailed) else error
        if self._exception is None:  # a test raises it again
            self._exception = error
            self._exception_event.set()
        self._close_messages_no_wait()
