"""One chat from the parent's side: the conversation, who is asked and how, and the exchange with the process."""

import secrets
from collections.abc import Iterator
from pathlib import Path

from qlora_tui.chat import transcript
from qlora_tui.chat.client import ChatClient
from qlora_tui.chat.protocol import Ask, Done, Failed, FromChild, Notice, Ready, Sampling, Side, Stage, Token
from qlora_tui.chat.transcript import Answer, Conversation
from qlora_tui.errors import UsageError

SEEDS = 2**32


class ChatSession:
    """What a chat screen and a chat command line share. Screens read its attributes and call its methods."""

    def __init__(self, client: ChatClient, sampling: Sampling, seed: int | None = None) -> None:
        self.client = client
        self.sampling = sampling
        self.conversation = Conversation()
        self.sides: tuple[Side, ...] = ("adapter",)
        """Who answers, in this order."""

        self.ready: Ready | None = None
        self.saved_as: Path | None = None
        self._seed = secrets.randbelow(SEEDS) if seed is None else seed
        self._asked = 0
        self._answering = False
        self._cancelled = False

    def loading(self) -> Iterator[Stage | Notice]:
        """Yield what the process says until it is ready. Raises the error that ended it."""
        while True:
            message = self.client.receive()
            if isinstance(message, Ready):
                self.ready = message
                return
            if isinstance(message, Stage | Notice):
                yield message

    def answer_with(self, *sides: Side) -> None:
        """Choose who answers from now on. Raises UsageError for a side that this run does not have."""
        if self.ready is not None and not set(sides) <= set(self.ready.sides):
            raise UsageError(
                "there is no base to compare with: this run trained every weight of its model",
                hint="Only runs with an adapter keep their base.",
            )
        self.sides = sides

    def ask(self, question: str) -> Iterator[FromChild]:
        """Ask a question and yield what comes: tokens, notices, and a Done or a Failed for each side.

        A question without an answer leaves no turn.
        """
        self.conversation.open_turn(question)
        yield from self._answers()

    def retry(self) -> Iterator[FromChild]:
        """Ask the last question again, with other random numbers. Raises UsageError when there is none."""
        if not self.conversation.turns:
            raise UsageError("nothing to retry: no question was asked yet")
        return self._answers()

    def cancel(self) -> None:
        """Stop the answer that is being given and keep what was said. Safe in a signal handler."""
        self._cancelled = True
        if self._answering:
            self.client.cancel(self._asked)

    def save(self, name: str | None = None) -> Path:
        """Write the transcript into the run's folder. Raises UsageError when there is nothing to save."""
        if not self.conversation.turns:
            raise UsageError("nothing to save: no question was asked yet")
        choice = self.client.choice
        about = {
            "run": choice.run.name,
            "checkpoint": choice.checkpoint,
            "model": self.ready.model if self.ready else None,
        }
        self.saved_as = transcript.save(choice.run, self.conversation, about, name, self.saved_as)
        return self.saved_as

    def clear(self) -> None:
        """Begin a new conversation; system prompt and settings stay."""
        self.conversation = Conversation(system=self.conversation.system)
        self.saved_as = None

    def _answers(self) -> Iterator[FromChild]:
        turn = self.conversation.turns[-1]
        self._cancelled = False
        try:
            for side in self.sides:
                if not self._cancelled:
                    yield from self._answer(side)
        finally:
            if not turn.answers and self.conversation.turns and self.conversation.turns[-1] is turn:
                self.conversation.turns.pop()

    def _answer(self, side: Side) -> Iterator[FromChild]:
        self._asked += 1
        answer = Answer(sampling=self.sampling.model_dump(), seed=(self._seed + self._asked - 1) % SEEDS)
        self.client.ask(
            Ask(
                id=self._asked,
                side=side,
                messages=self.conversation.prompt(side),
                sampling=self.sampling,
                seed=answer.seed,
            )
        )
        self._answering = True
        try:
            if self._cancelled:  # between the first look and now
                self.client.cancel(self._asked)
            yield from self._receive(side, answer)
        finally:
            self._answering = False

    def _receive(self, side: Side, answer: Answer) -> Iterator[FromChild]:
        while True:
            message = self.client.receive()
            if isinstance(message, Token):
                answer.text += message.text
            elif isinstance(message, Done):
                answer.reason = message.reason
                answer.tokens, answer.tokens_per_s = message.tokens, message.tokens_per_s
                self.conversation.turns[-1].answers[side] = answer
            yield message
            if isinstance(message, Done | Failed):
                return
