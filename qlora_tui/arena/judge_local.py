"""A model on this machine as the judge: it answers in a process of its own, one prompt at a time, at no cost.

It is one side of a run, or a base model without any run. It always takes the likeliest token, so the same prompt gets
the same verdict.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock
from types import TracebackType
from typing import Self

from qlora_tui import atomic, paths
from qlora_tui.arena.judge_endpoint import RefusedError, Reply
from qlora_tui.arena.judge_prompts import Prompt
from qlora_tui.chat.client import ChatClient, Choice, Device, as_error
from qlora_tui.chat.protocol import Done, Failed, Sampling, Side
from qlora_tui.chat.session import ChatSession
from qlora_tui.config import toml_file
from qlora_tui.config.model import STARTER, ModelSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import CancelledError, ExitCode
from qlora_tui.models.location import local_folder
from qlora_tui.runs import store
from qlora_tui.runs.store import RunFolder

_OF_ONE_PROMPT = {ExitCode.USAGE, ExitCode.OUT_OF_MEMORY}
"""Exit codes of what goes wrong with a long prompt and may go well with a shorter one."""


@dataclass(frozen=True, slots=True)
class LocalJudge:
    """Which model judges. `name` identifies it in the verdicts."""

    name: str
    choice: Choice
    side: Side
    max_tokens: int


def of_run(name: str, side: Side, device: Device, max_tokens: int, *, allow_download: bool) -> LocalJudge:
    """A side of a run. Raises NotFoundError."""
    choice = Choice(store.find(name), device=device, allow_download=allow_download)
    return LocalJudge(f"run:{name}" + (":base" if side == "base" else ""), choice, side, max_tokens)


def config_of(model: str) -> RunConfig:
    """How a base model, the starter, a folder or a hub id, is loaded to judge: in NF4, as runs load it."""
    spec = ModelSpec(id=model)
    folder = local_folder(spec)
    if folder is not None and folder.exists() and model != STARTER:
        spec = ModelSpec(id=str(folder.absolute()))
    return RunConfig(model=spec)


def of_model(config: RunConfig, device: Device, max_tokens: int, *, allow_download: bool) -> LocalJudge:
    """A base model without a run. Its process gets a folder in the cache for its configuration and its log."""
    digest = hashlib.sha256(config.model.id.encode("utf-8", "replace")).hexdigest()[:16]
    folder = RunFolder(paths.cache() / "judges" / digest)
    with atomic.storage_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder.config, toml_file.to_toml(config))
    choice = Choice(folder, base_only=True, device=device, allow_download=allow_download)
    return LocalJudge(f"model:{config.model.id}", choice, "base", max_tokens)


class LocalModel:
    """Asks the model. The process runs while this is used as a context manager."""

    def __init__(self, judge: LocalJudge, say: Callable[[str], None] = lambda text: None) -> None:
        self._judge = judge
        self._side: Side = judge.side
        self._sampling = Sampling(temperature=0, max_tokens=judge.max_tokens)
        self._cancelled = Event()
        self._say = say
        self._session: ChatSession | None = None
        self._one_at_a_time = Lock()

    @property
    def name(self) -> str:
        return self._judge.name

    def __enter__(self) -> Self:
        """Load the model. Raises what `chat.client.check` raises and what ended the process."""
        client = ChatClient(self._judge.choice)
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
                raise CancelledError(
                    "stopped while the judge was writing", hint="Run the same command again to continue."
                )
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
