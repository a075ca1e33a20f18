"""The commands of a chat, such as `/set temperature 0`: one table for every screen."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from qlora_tui.chat.protocol import FromChild
from qlora_tui.chat.session import ChatSession
from qlora_tui.errors import UsageError, nearest


class Outcome(NamedTuple):
    """What a command leads to: words for the user, answers to be shown, or the end of the chat."""

    text: str = ""
    answers: Iterator[FromChild] | None = None
    leave: bool = False


class Command(NamedTuple):
    usage: str
    help: str
    run: Callable[[ChatSession, str], Outcome]
    takes_argument: bool = True


def obey(session: ChatSession, line: str) -> Outcome:
    """Do what a line says: a command when it starts with a slash (two slashes write a literal one), else a question.

    Raises UsageError naming the nearest command or setting.
    """
    if line.startswith("//") or not line.startswith("/"):
        return Outcome(answers=session.ask(line.removeprefix("/") if line.startswith("//") else line))
    name, _, argument = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        known = list(COMMANDS)
        raise UsageError(f"no command {name}", hint=f"{nearest(name, known)} /help lists them; // starts a plain text.")
    if argument.strip() and not command.takes_argument:
        raise UsageError(f"{name} takes nothing after it", hint=f"Usage: {command.usage}")
    return command.run(session, argument.strip())


def _base(session: ChatSession, _: str) -> Outcome:
    session.answer_with("base")
    return Outcome("the base model answers, without the adapter")


def _adapter(session: ChatSession, _: str) -> Outcome:
    session.answer_with("adapter")
    return Outcome("the trained model answers")


def _both(session: ChatSession, _: str) -> Outcome:
    session.answer_with("base", "adapter")
    return Outcome("the base and the trained model answer, each with a history of its own")


def _system(session: ChatSession, text: str) -> Outcome:
    session.conversation.set_system(text)
    return Outcome("system prompt set" if text else "system prompt removed")


def _set(session: ChatSession, argument: str) -> Outcome:
    words = argument.replace("=", " ").split()
    if not words:
        return Outcome("\n".join(f"{name} = {value:g}" for name, value in session.sampling.model_dump().items()))
    if len(words) != 2:
        raise UsageError("one setting and one value are needed", hint=f"Usage: {COMMANDS['/set'].usage}")
    session.sampling = session.sampling.changed(*words)
    return Outcome(f"{words[0]} = {getattr(session.sampling, words[0]):g}")


def _retry(session: ChatSession, _: str) -> Outcome:
    return Outcome(answers=session.retry())


def _undo(session: ChatSession, _: str) -> Outcome:
    return Outcome(f"forgotten: {session.conversation.undo().question}")


def _save(session: ChatSession, name: str) -> Outcome:
    return Outcome(f"saved as {session.save(name or None)}")


def _clear(session: ChatSession, _: str) -> Outcome:
    session.clear()
    return Outcome("a new conversation")


def _help(session: ChatSession, _: str) -> Outcome:
    width = max(len(command.usage) for command in COMMANDS.values())
    return Outcome("\n".join(f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()))


def _quit(session: ChatSession, _: str) -> Outcome:
    return Outcome(leave=True)


COMMANDS = {
    "/base": Command("/base", "ask the base model, without the adapter", _base, takes_argument=False),
    "/adapter": Command("/adapter", "ask the trained model", _adapter, takes_argument=False),
    "/both": Command("/both", "ask both, one after the other", _both, takes_argument=False),
    "/system": Command("/system [TEXT]", "set the system prompt, or remove it", _system),
    "/set": Command(
        "/set [NAME VALUE]", "temperature, top_p, top_k, max_tokens, repetition_penalty; alone: show them", _set
    ),
    "/retry": Command("/retry", "answer the last question again", _retry, takes_argument=False),
    "/undo": Command("/undo", "forget the last question and its answer", _undo, takes_argument=False),
    "/save": Command("/save [NAME]", "write the conversation into the run's chats folder", _save),
    "/clear": Command("/clear", "begin a new conversation", _clear, takes_argument=False),
    "/help": Command("/help", "this list", _help, takes_argument=False),
    "/quit": Command("/quit", "leave (or Ctrl-D)", _quit, takes_argument=False),
}
