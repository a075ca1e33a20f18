"""A run of ours as the judge: its model answers in a process of its own, one prompt at a time, at no cost.

It always takes the likeliest token, so the same prompt gets the same verdict.
"""

from collections.abc import Callable
from threading import Event, Lock
from types import TracebackType
from typing import Self

from qlora_tui.chat.client import ChatClient, Choice, as_error
from qlora_tui.chat.protocol import Done, Failed, Sampling, Side
from qlora_tui.chat.session import ChatSession
from qlora_tui.errors import CancelledError, ExitCode
from qlora_tui.evaluation.judge_endpoint import RefusedError, Reply
from qlora_tui.evaluation.judge_prompts import Prompt

_OF_ONE_PROMPT = {ExitCode.USAGE, ExitCode.OUT_OF_MEMORY}
"""Exit codes of what goes wrong with a long prompt and may go well with a shorter one."""


class RunJudge:
    """Asks one side of a run. The process runs while this is used as a context manager."""

    def __init__(
        self, choice: Choice, side: Side, max_tokens: int, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._choice = choice
        self._side: Side = side
        self._sampling = Sampling(temperature=0, max_tokens=max_tokens)
        self._cancelled = Event()
        self._say = say
        self._session: ChatSession | None = None
        self._one_at_a_time = Lock()

    @property
    def name(self) -> str:
        return f"run:{self._choice.run.name}" + (":base" if self._side == "base" else "")

    def __enter__(self) -> Self:
        """Load the model. Raises what `chat.client.check` raises and what ended the process."""
        client = ChatClient(self._choice)
        try:
            self._session = ChatSession(client, self._sampling, seed=0)
            for message in self._session.loading():
                self._say(message.text)
            self._session.answer_with(self._side)
        except BaseException:
            client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        self._session.client.close()

    def cancel(self) -> None:
        """End the verdict that is being written, for which nothing was paid. Safe in a signal handler."""
        self._cancelled.set()
        if self._session is not None:
            self._session.cancel()

    def ask(self, prompt: Prompt, request_id: str) -> Reply:
        """The verdict. Both parts of the prompt go in one turn, since not every chat template has a system turn.

        Raises RefusedError for a prompt that is too long, CancelledError after `cancel`, and what ended the process.
        """
        with self._one_at_a_time:
            done = self._answer(f"{prompt.system}\n\n{prompt.user}")
            if done is None or done.reason == "cancelled":
                raise CancelledError("stopped while the judge was writing", hint="The same command goes on.")
            assert self._session is not None
            text = self._session.conversation.turns[-1].answers[self._side].text
        return Reply(text, done.context_used_tokens - done.tokens, done.tokens)

    def _answer(self, question: str) -> Done | None:
        """The end of the answer, None when it was not asked for any more."""
        session = self._session
        assert session is not None, "not used as a context manager"
        if self._cancelled.is_set():
            return None
        session.clear()
        done = None
        for message in session.ask(question):
            if isinstance(message, Done):
                done = message
            elif isinstance(message, Failed):
                if message.exit_code not in _OF_ONE_PROMPT:
                    raise as_error(message)
                raise RefusedError(message.message, hint="Judge with a model that has a longer context.")
            elif self._cancelled.is_set():  # it came while the question was being sent
                session.cancel()
        return done
