"""`qlora-tui chat`: a conversation with a trained model in the terminal, or one answer in a pipe."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from qlora_tui.cli.options import Run, Yes
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from rich.console import Console

    from qlora_tui.chat.client import Device
    from qlora_tui.chat.protocol import Done, FromChild, Sampling
    from qlora_tui.chat.session import ChatSession

_PATIENT_INTERRUPTS = 3
"""So many times Ctrl-C asks for the end of an answer; then it ends the chat."""


def register(app: typer.Typer) -> None:
    """Add the `chat` command."""
    app.command("chat")(chat)


def chat(
    name: Run,
    checkpoint: Annotated[
        int | None,
        typer.Option("--checkpoint", metavar="STEP", help="This checkpoint instead of the finished adapter."),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model, without the adapter.")] = False,
    system: Annotated[str, typer.Option("--system", metavar="TEXT", help="System prompt.")] = "",
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="0: always the likeliest token. Default 0.7, for the starter 0."),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Share of probability to choose from. Default 0.9.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest answer. Default 512.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Same seed and settings, same answers.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to load the model.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Write the answer as JSON to stdout.")] = False,
    yes: Yes = False,
) -> None:
    """Talk to a trained model. In a terminal: a conversation, /help lists its commands.

    In a pipe all of stdin is one question, and stdout gets the answer alone:  echo question | qlora-tui chat RUN
    """
    from qlora_tui.chat.client import ChatClient, Choice
    from qlora_tui.chat.session import ChatSession
    from qlora_tui.runs import store

    folder = store.find(name)
    sampling = _sampling(folder.load_config().model.id, temperature, top_p, max_tokens)
    choice = Choice(folder, checkpoint, _device(device), allow_download=yes)
    interactive = sys.stdin.isatty() and not as_json
    question = "" if interactive else _question()
    with ChatClient(choice) as client:
        session = ChatSession(client, sampling, seed)
        session.conversation.system = system
        _load(session)
        if base:
            session.answer_with("base")
        if interactive:
            _converse(session)
        else:
            _answer_once(session, question, as_json)


def _sampling(model_id: str, temperature: float | None, top_p: float | None, max_tokens: int | None) -> "Sampling":
    from qlora_tui.chat.protocol import Sampling

    sampling = Sampling.for_model(model_id)
    for name, value in (("temperature", temperature), ("top_p", top_p), ("max_tokens", max_tokens)):
        if value is not None:
            sampling = sampling.changed(name, str(value))
    return sampling


def _device(text: str) -> "Device":
    from qlora_tui.chat.client import DEVICES
    from qlora_tui.errors import UsageError, nearest

    for device in DEVICES:
        if text == device:
            return device
    raise UsageError(f"--device {text}: no such device", hint=nearest(text, list(DEVICES)))


def _question() -> str:
    from qlora_tui.errors import UsageError

    question = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    if not question:
        raise UsageError("no question on stdin", hint="echo question | qlora-tui chat RUN, or start it in a terminal.")
    return question


def _load(session: "ChatSession") -> None:
    """Show the stages of loading, and keep the notices, where a person sees them."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        for _ in session.loading():
            pass
        return
    with console.status(Text("starting")) as status:
        for message in session.loading():
            text = Text(printable(message.text, one_line=True))
            if message.kind == "notice":
                console.print(text, style="dim")
            else:
                status.update(text)


def _answer_once(session: "ChatSession", question: str, as_json: bool) -> None:
    from qlora_tui.chat.client import as_error
    from qlora_tui.errors import CancelledError

    output = _Output()
    done = None
    with _interrupt_stops(session):
        for message in session.ask(question):
            if message.kind == "token" and not as_json:
                output.write(message.text)
            elif message.kind == "notice":
                narrate(message.text)
            elif message.kind == "failed":
                raise as_error(message)
            elif message.kind == "done":
                done = message
    assert done is not None
    if as_json:
        answer = session.conversation.turns[-1].answers[done.side]
        facts = done.model_dump(exclude={"kind", "id"}) | {"seed": answer.seed, "sampling": answer.sampling}
        typer.echo(json.dumps({"question": question, "answer": answer.text, **facts}, ensure_ascii=False))
    else:
        output.end()
    if done.reason == "cancelled":
        raise CancelledError("stopped by Ctrl-C: the answer is not complete")
    if done.reason == "length":
        narrate(_end(done))


def _converse(session: "ChatSession") -> None:
    from rich.console import Console
    from rich.text import Text

    from qlora_tui.chat.commands import obey
    from qlora_tui.errors import QloraError

    console = Console(stderr=not sys.stdout.isatty(), highlight=False)
    assert session.ready is not None
    who = f"{session.client.choice.run.name} ({session.ready.model} on {session.ready.device}, "
    who += f"context {session.ready.context_max_tokens} tokens). /help lists the commands."
    console.print(Text(printable(who, one_line=True)), style="dim")
    for line in _lines():
        try:
            outcome = obey(session, line)
            if outcome.leave:
                return
            if outcome.text:
                console.print(Text(printable(outcome.text)), style="dim")
            if outcome.answers is not None:
                _show(session, outcome.answers, console)
        except QloraError as error:
            if not session.client.alive:
                raise
            console.print(Text(printable(f"{error.message}. {error.hint}".rstrip())), style="yellow")


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
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)  # noqa: T201  (stdout gets answers alone)
    return input()


def _show(session: "ChatSession", messages: "Iterator[FromChild]", console: "Console") -> None:
    from rich.text import Text

    output = _Output()
    side = None
    with _interrupt_stops(session):
        for message in messages:
            if message.kind == "token":
                if len(session.sides) > 1 and side != message.side:
                    side = message.side
                    console.print(Text(f"{side}:"), style="bold")
                output.write(message.text)
            elif message.kind == "done":
                output.end()
                output = _Output()
                console.print(Text(_end(message)), style="dim")
            elif message.kind == "failed":
                output.end()
                console.print(Text(printable(f"{message.message}. {message.hint}".rstrip())), style="yellow")
            elif message.kind == "notice":
                console.print(Text(printable(message.text)), style="dim")


def _end(done: "Done") -> str:
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


class _Output:
    """Writes one answer to stdout as it comes: control characters made inert, no blank lines around it."""

    def __init__(self) -> None:
        self._begun = False
        self._last = "\n"

    def write(self, text: str) -> None:
        text = printable(text if self._begun else text.lstrip())
        if text:
            self._begun = True
            self._last = text[-1]
            sys.stdout.write(text)
            sys.stdout.flush()

    def end(self) -> None:
        if self._last != "\n":
            sys.stdout.write("\n")
            sys.stdout.flush()


@contextmanager
def _interrupt_stops(session: "ChatSession") -> Iterator[None]:
    """Within the block Ctrl-C stops the answer, which then ends in good order, its text kept."""
    presses = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses >= _PATIENT_INTERRUPTS:
            raise KeyboardInterrupt
        session.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
