"""The life of a chat in its screen: a run is loaded, asked, and let go of, and what its process says is shown."""

from collections.abc import Iterator

from textual import getters, on, work
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static
from textual.worker import get_current_worker

from qlora_tui.chat.client import Choice
from qlora_tui.chat.protocol import FromChild
from qlora_tui.chat.session import ChatSession
from qlora_tui.errors import QloraError, RunConflictError
from qlora_tui.runs import store
from qlora_tui.terminal import printable
from qlora_tui.ui import answering
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.chat_choices import ChatChoices, only_checkpoint
from qlora_tui.ui.widgets.chat_turn import facts_of
from qlora_tui.ui.widgets.conversation_view import ConversationView
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.sampling_panel import SamplingPanel


class SessionPlace(Place):
    """At most one run is loaded at a time; its process ends with the screen."""

    status: reactive[str] = reactive("")
    """One line below the conversation: what is loaded, or what it waits for."""

    workbench = getters.app(Workbench)

    def __init__(self) -> None:
        super().__init__()
        self.session: ChatSession | None = None
        self.wanted: tuple[str, int | None] | None = None
        """Run and checkpoint that are loaded, or will be when somebody asks."""
        self._loading = False
        self._question = ""
        """Asked before the model was loaded."""
        self.is_answering = False
        self._status_line = ""

    def on_unmount(self) -> None:
        self._close()

    def watch_status(self, status: str) -> None:
        if self.is_mounted:
            self.query_one("#chat-status", Static).update(printable(status, one_line=True))

    def open_run(self, name: str, checkpoint: int | None = None, device: str = "auto") -> None:
        """Load this run, whatever was loaded before: its adapter, or its newest checkpoint where that is all it has."""
        self._close()
        try:
            checkpoint = only_checkpoint(name) if checkpoint is None else checkpoint
            self.query_one(ChatChoices).show(name, checkpoint)
        except QloraError as error:
            self._complain(error)
            return
        self.wanted = (name, checkpoint)
        self.query_one("#chat-refused").display = False
        self.query_one(ConversationView).remove_children()
        self.status = "starting"
        self._loading = True
        self._load(name, checkpoint, device)

    @work(thread=True, exclusive=True, group="chat-load", exit_on_error=False)
    def _load(self, name: str, checkpoint: int | None, device: str) -> None:
        worker = get_current_worker()
        try:
            choice = Choice(store.find(name), checkpoint, "cpu" if device == "cpu" else "auto")
        except QloraError as error:
            self.post_message(answering.ChatBroken(error))
            return
        answering.load(choice, self.post_message, lambda: worker.is_cancelled or not self.is_running)

    @work(thread=True, group="chat-close", exit_on_error=False)
    def _end(self, session: ChatSession) -> None:
        session.client.close()

    def _close(self) -> None:
        """Let go of the chat process; the model's memory is free when it has ended."""
        session, self.session = self.session, None
        self.workers.cancel_group(self, "chat-load")
        self.is_answering = self._loading = False
        self._question = ""
        if session is None:
            return
        if self.is_running:
            self._end(session)
        else:
            session.client.close()

    async def begin(self, question: str, answers: Iterator[FromChild]) -> None:
        assert self.session is not None
        self.is_answering = True
        await self.query_one(ConversationView).open_turn(question, self.session.sides)
        self._ask(self.session, answers)

    @work(thread=True, group="chat-ask", exit_on_error=False)
    def _ask(self, session: ChatSession, answers: Iterator[FromChild]) -> None:
        def post(message: Message) -> None:
            if session is self.session:
                self.post_message(message)

        answering.tell(session, answers, post)

    def _idle_session(self) -> ChatSession | None:
        return None if self.is_answering else self.session

    # What the chat process says

    @on(answering.ChatLoading)
    def _loading_advanced(self, message: answering.ChatLoading) -> None:
        self.status = message.text

    @on(answering.ChatReady)
    async def _ready(self, message: answering.ChatReady) -> None:
        self.session, self._loading = message.session, False
        ready = message.session.ready
        assert ready is not None
        self._status_line = f"{ready.model} on {ready.device}, context {ready.context_max_tokens} tokens"
        self.status = self._status_line
        choices = self.query_one(ChatChoices)
        if set(choices.sides) <= set(ready.sides):
            message.session.answer_with(*choices.sides)
        else:
            choices.only_adapter()
        self.query_one(SamplingPanel).show(message.session.sampling, "")
        question, self._question = self._question, ""
        if question:
            await self.begin(question, message.session.ask(question))

    @on(answering.ChatBroken)
    def _broken(self, message: answering.ChatBroken) -> None:
        if self._question:
            self.query_one(Prompt).load_text(self._question)
        self._close()
        error = message.error
        self.status = ""
        self.query_one("#chat-refused").display = True
        self.query_one("#chat-on-cpu").display = isinstance(error, RunConflictError) and "--device cpu" in error.hint
        self.query_one("#chat-reason", Static).update(printable(f"{error.message}\n{error.hint}".rstrip()))

    @on(answering.AnswerAdvanced)
    async def _advanced(self, message: answering.AnswerAdvanced) -> None:
        if turns := self.query_one(ConversationView).turns:
            await turns[-1].answer(message.side).add(message.text)

    @on(answering.AnswerEnded)
    async def _ended(self, message: answering.AnswerEnded) -> None:
        done = message.done
        if turns := self.query_one(ConversationView).turns:
            await turns[-1].answer(done.side).end(facts_of(done))
        used = f"context {done.context_used_tokens} of {done.context_max_tokens} tokens"
        self.status = f"{self._status_line.rpartition(', ')[0]}, {used}, {done.tokens_per_s:.0f} tokens/s"

    @on(answering.AnswersEnded)
    async def _answers_ended(self, message: answering.AnswersEnded) -> None:
        self.is_answering = False
        if message.problem is not None:
            self.notify(printable(message.problem), severity="error", markup=False)
        session = self.session
        if session is None:
            return
        if len(self.query_one(ConversationView).turns) > len(
            session.conversation.turns
        ):  # nobody could answer: the question is taken back
            await self.query_one(ConversationView).drop_last()
        if session.conversation.turns:
            try:
                session.save()
            except QloraError as error:
                self._complain(error)

    def _complain(self, error: QloraError) -> None:
        self.notify(f"{error.message}\n{error.hint}".rstrip(), severity="error", markup=False)
