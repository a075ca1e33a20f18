"""`qlora-tui chat`: a conversation with a trained model in the terminal, or one answer in a pipe."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qlora_tui.cli.command import ANSWER_OPTIONS
from qlora_tui.cli.options import Run, Yes
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.chat.client import Device
    from qlora_tui.chat.protocol import Sampling
    from qlora_tui.chat.session import ChatSession

Checkpoint = Annotated[
    int | None,
    typer.Option("--checkpoint", metavar="STEP", help="Checkpoint step to use instead of the finished adapter."),
]
Base = Annotated[bool, typer.Option("--base", help="Ask the base model, without the adapter.")]
System = Annotated[str, typer.Option("--system", rich_help_panel=ANSWER_OPTIONS, metavar="TEXT", help="System prompt.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        rich_help_panel=ANSWER_OPTIONS,
        help="0: always the likeliest token. Default 0.7, for the starter 0.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", rich_help_panel=ANSWER_OPTIONS, help="Share of probability to choose from. Default 0.9."),
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", rich_help_panel=ANSWER_OPTIONS, help="Longest answer. Default 512.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", rich_help_panel=ANSWER_OPTIONS, min=0, max=2**32 - 1, help="Same seed and settings, same answers."
    ),
]
DeviceName = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to load the model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the answer as JSON to stdout.")]


def register(app: typer.Typer) -> None:
    """Add the `chat` command."""
    app.command("chat")(chat)


def chat(
    name: Run,
    checkpoint: Checkpoint = None,
    base: Base = False,
    system: System = "",
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    device: DeviceName = "auto",
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Chat with a trained model.

    In a terminal, `/help` lists the commands of the conversation. In a pipe, stdin is read as one question, and only
    the answer is written to stdout.
    """
    from qlora_tui.chat.client import ChatClient, Choice
    from qlora_tui.chat.session import ChatSession
    from qlora_tui.cli.chat_terminal import converse
    from qlora_tui.runs import store

    folder = store.find(name)
    sampling = _sampling(folder.load_config().model.id, temperature, top_p, max_tokens)
    choice = Choice(folder, checkpoint, _device(device), allow_download=yes)
    interactive = sys.stdin.isatty() and not as_json
    question = "" if interactive else _question()
    with ChatClient(choice) as client:
        session = ChatSession(client, sampling, seed)
        session.conversation.set_system(system)
        _load(session)
        if base:
            session.answer_with("base")
        if interactive:
            converse(session)
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
    from rich.text import Text

    from qlora_tui.cli.inert_console import InertConsole

    console = InertConsole(stderr=True)
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
    from qlora_tui.cli.chat_terminal import AnswerOutput, end_line, on_interrupt, stopper
    from qlora_tui.errors import CancelledError

    output = AnswerOutput()
    done = None
    with on_interrupt(stopper(session)):
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
        from qlora_tui.cli.output import write_json_line

        answer = session.conversation.turns[-1].answers[done.side]
        facts = done.model_dump(exclude={"kind", "id"}) | {"seed": answer.seed, "sampling": answer.sampling}
        write_json_line({"question": question, "answer": answer.text, **facts})
    else:
        output.end()
    if done.reason == "cancelled":
        raise CancelledError("stopped by Ctrl-C: the answer is not complete")
    if done.reason == "length":
        narrate(end_line(done))
