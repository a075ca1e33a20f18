"""From a chat session, which waits, to messages for the screen: runs in a thread and bounds its own rate."""

import time
from collections.abc import Callable, Iterator

from textual.message import Message

from qlora_tui.chat.client import ChatClient, Choice
from qlora_tui.chat.protocol import Done, FromChild, Sampling, Side
from qlora_tui.chat.session import ChatSession
from qlora_tui.errors import QloraError

_TELL_EVERY_S = 0.05
"""Between two messages about one answer: the chat's 20 Hz."""


class ChatLoading(Message):
    """How far the model is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class ChatReady(Message):
    """The model can be asked."""

    def __init__(self, session: ChatSession) -> None:
        super().__init__()
        self.session = session


class ChatBroken(Message):
    """The chat could not begin, or its process ended."""

    def __init__(self, error: QloraError) -> None:
        super().__init__()
        self.error = error


class AnswerAdvanced(Message):
    """The next piece of an answer."""

    def __init__(self, side: Side, text: str) -> None:
        super().__init__()
        self.side = side
        self.text = text


class AnswerEnded(Message):
    """One side has said all it has to say."""

    def __init__(self, done: Done) -> None:
        super().__init__()
        self.done = done


class AnswersEnded(Message):
    """Every side that was asked has answered, or the answer failed for this reason."""

    def __init__(self, problem: str | None = None) -> None:
        super().__init__()
        self.problem = problem


Post = Callable[[Message], object]


def load(choice: Choice, post: Post, take: Callable[[ChatClient], bool], is_unwanted: Callable[[], bool]) -> None:
    """Start the chat process, hand it to the one who ends it, and tell how it loads.

    `take` says whether the process is still wanted. Whoever wants it no more later on closes it, which ends the waiting
    here.
    """
    try:
        client = ChatClient(choice)
        if not take(client):
            client.close()
            return
        session = ChatSession(client, Sampling.for_model(choice.run.load_config().model.id))
        for said in session.loading():
            post(ChatLoading(said.text))
    except (QloraError, ValueError) as error:  # a ValueError when the pipe was closed between two messages
        if is_unwanted():
            return
        if not isinstance(error, QloraError):
            raise
        post(ChatBroken(error))
    else:
        post(ChatReady(session))


def tell(session: ChatSession, answers: Iterator[FromChild], post: Post) -> None:
    """Hand on what comes of a question, tokens together where they come fast."""
    pending, side, told_s = "", session.sides[0], 0.0
    problem = None
    try:
        for message in answers:
            if message.kind == "token":
                if pending and (message.side != side or time.monotonic() - told_s >= _TELL_EVERY_S):
                    post(AnswerAdvanced(side, pending))
                    pending, told_s = "", time.monotonic()
                pending, side = pending + message.text, message.side
                continue
            if pending:
                post(AnswerAdvanced(side, pending))
                pending = ""
            if message.kind == "done":
                post(AnswerEnded(message))
            elif message.kind == "failed":
                problem = f"{message.message}. {message.hint}".strip()
    except QloraError as error:
        if not session.client.alive:
            post(ChatBroken(error))
        problem = f"{error.message}. {error.hint}".strip()
    post(AnswersEnded(problem))
