"""A conversation at a terminal: reading lines, showing answers as they come, and what Ctrl-C means when."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from qlora_tui.cli.output import write_piece
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from qlora_tui.chat.protocol import Done, FromChild
    from qlora_tui.chat.session import ChatSession

    Handler = Callable[[int, FrameType | None], None] | signal.Handlers

_PATIENT_INTERRUPTS = 3
"""So many times Ctrl-C asks for the end of an answer; then it ends the chat."""


def converse(session: "ChatSession") -> None:
    """Talk until the user leaves. Raises the error that ended the chat process."""
    from rich.text import Text

    from qlora_tui.cli.inert_console import InertConsole

    console = InertConsole(stderr=not sys.stdout.isatty())
    assert session.ready is not None
    who = f"{session.client.choice.run.name} ({session.ready.model} on {session.ready.device}, "
    who += f"context {session.ready.context_max_tokens} tokens). /help lists the commands."
    console.print(Text(printable(who, one_line=True)), style="dim")
    # Ctrl-C between a prompt and an answer means neither of them.
    with on_interrupt(signal.SIG_IGN):
        for line in _lines():
            if not _obey(session, line, console):
                return


def _obey(session: "ChatSession", line: str, console: "Console") -> bool:
    """Do what a line says; False when it ends the chat."""
    from rich.text import Text

    from qlora_tui.chat.commands import obey
    from qlora_tui.errors import CancelledError, QloraError

    try:
        outcome = obey(session, line)
        if outcome.text:
            console.print(Text(printable(outcome.text)), style="dim")
        if outcome.answers is not None:
            _show(session, outcome.answers, console)
        return not outcome.leave
    except QloraError as error:
        if isinstance(error, CancelledError) or not session.client.alive:
            raise
        console.print(Text(printable(f"{error.message}. {error.hint}".rstrip())), style="yellow")
        return True


def _lines() -> Iterator[str]:
    """What is typed, until Ctrl-D or a second Ctrl-C in a row."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history and editing)
    interrupted = False
    while True:
        try:
            line = _read()
        except EOFError:
            narrate("")
            return
        except KeyboardInterrupt:
            narrate("")
            if interrupted:
                return
            narrate("Ctrl-C again leaves, and so do Ctrl-D and /quit.")
            interrupted = True
            continue
        except UnicodeDecodeError:
            narrate("That was not UTF-8 text.")
            continue
        interrupted = False
        if line.strip():
            yield line.strip()


def _read() -> str:
    with on_interrupt(signal.default_int_handler):
        if sys.stdout.isatty():
            return input("> ")
        narrate("> ", end="")  # stdout gets answers alone
        return input()


def _show(session: "ChatSession", messages: "Iterator[FromChild]", console: "Console") -> None:
    from rich.text import Text

    output = AnswerOutput()
    side = None
    with on_interrupt(stopper(session)):
        for message in messages:
            if message.kind == "token":
                if len(session.sides) > 1 and side != message.side:
                    side = message.side
                    console.print(Text(f"{side}:"), style="bold")
                output.write(message.text)
            elif message.kind == "done":
                output.end()
                output = AnswerOutput()
                console.print(Text(end_line(message)), style="dim")
            elif message.kind == "failed":
                output.end()
                console.print(Text(printable(f"{message.message}. {message.hint}".rstrip())), style="yellow")
            elif message.kind == "notice":
                console.print(Text(printable(message.text)), style="dim")


def end_line(done: "Done") -> str:
    """How an answer ended and what it took, in one line."""
    used, most = done.context_used_tokens, done.context_max_tokens
    parts = [f"{done.tokens} tokens", f"{done.tokens_per_s:.0f} tokens/s", f"context {used}/{most}"]
    if done.reused_tokens:
        parts.append(f"{done.reused_tokens} from the cache")
    if done.reason == "cancelled":
        parts.append("stopped")
    elif done.reason == "length":
        parts.append("cut: the context is full" if used >= most else "cut at max_tokens")
    return ", ".join(parts)


class AnswerOutput:
    """Writes one answer to stdout as it comes: control characters made inert, no blank lines around it."""

    def __init__(self) -> None:
        self._begun = False
        self._last = "\n"

    def write(self, text: str) -> None:
        """Write the next piece."""
        text = text if self._begun else text.lstrip()
        if text:
            self._begun = True
            self._last = text[-1]
            write_piece(text)

    def end(self) -> None:
        """End the last line."""
        if self._last != "\n":
            write_piece("\n")


def stopper(session: "ChatSession") -> "Handler":
    """What Ctrl-C does during an answer: it stops it in good order, its text kept; in the end it ends the chat."""
    from qlora_tui.errors import CancelledError

    presses = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses >= _PATIENT_INTERRUPTS:
            raise CancelledError("chat ended: the answer did not stop")
        session.cancel()

    return stop


@contextmanager
def on_interrupt(handler: "Handler") -> Iterator[None]:
    """Within the block Ctrl-C does this."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
