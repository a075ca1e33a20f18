"""The life of a chat in its screen: a run is loaded, asked, and let go of, and what its process says is shown."""

import threading
from collections.abc import Iterator

from textual import getters, on, work
from textual.message import Message
from textual.reactive import reactive, var
from textual.widgets import Static
from textual.worker import get_current_worker

from qlora_tui.chat import offers
from qlora_tui.chat.client import ChatClient, Choice
from qlora_tui.chat.protocol import FromChild, Sampling
from qlora_tui.chat.session import ChatSession
from qlora_tui.chat.transcript import Conversation
from qlora_tui.errors import QloraError, RunConflictError
from qlora_tui.runs import store
from qlora_tui.terminal import printable
from qlora_tui.ui import answering
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.chat_choices import ChatChoices
from qlora_tui.ui.widgets.chat_turn import facts_of
from qlora_tui.ui.widgets.conversation_view import ConversationView
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.sampling_panel import SamplingPanel


class SessionPlace(Place):
    """At most one run is loaded at a time. Its process ends with the screen, by a key, and when a run is started.

    A conversation outlives its process: the next question loads the model again.
    """

    status: reactive[str] = reactive("")
    """One line below the conversation: what is loaded, or what it waits for."""

    wanted: var[tuple[str, int | None] | None] = var(None)
    """Run and checkpoint that are loaded, or will be with the next question. None of it: the finished adapter."""

    workbench = getters.app(Workbench)

    def __init__(self) -> None:
        super().__init__()
        self.session: ChatSession | None = None
        self._kept: ChatSession | None = None
        """The conversation of a model that was unloaded."""
        self._adapter: tuple[int, int] | None = None
        """Identity of the finished adapter at the time when `wanted` was loaded."""
        self._device = "auto"
        self.sampling: Sampling | None = None
        """What a person has set; None leaves each model its own."""
        self.system = ""
        self._client: ChatClient | None = None
        """The process that loads or answers."""
        self._taking = threading.Lock()
        self._loading = False
        self._question = ""
        """Asked before the model was loaded."""
        self.is_answering = False
        self._status_line = ""
        self._loading_stage = ""

    def on_mount(self) -> None:
        self.workbench.release_chat = self.release

    def on_unmount(self) -> None:
        self._close()

    def watch_status(self, status: str) -> None:
        if self.is_mounted:
            self.query_one("#chat-status", Static).update(printable(status, one_line=True))

    def open_asked(self, name: str, checkpoint: int | None) -> None:
        """Chat with the weights requested by another place.

        What is loaded already stays as it is, with its conversation. The conversation also stays when another model
        of the same run is loaded because the run has written a new adapter.
        """
        if self.wanted is None or self.wanted[0] != name or checkpoint not in (None, self.wanted[1]):
            self.open_run(name, checkpoint)
            return
        try:
            offer = offers.offer(name)
        except QloraError as error:
            self._complain(error)
            return
        loaded = self.wanted[1]
        if self.is_loaded and (loaded is not None or offer.adapter == self._adapter):
            if checkpoint is None and loaded != offer.default_checkpoint:
                self.status = f"checkpoint {loaded} of {name} is loaded; select newer weights above"
        else:
            self.unload()
            self.open_run(name, loaded)

    def open_run(self, name: str, checkpoint: int | None = None, device: str = "auto") -> None:
        """Load this run, whatever was loaded before: its adapter, or its newest checkpoint where that is all it has.

        A conversation that waits for just that is gone on with.
        """
        choices = self.query_one(ChatChoices)
        try:
            offer = offers.offer(name)
        except QloraError as error:
            self._complain(error)
            choices.draw()
            return
        self._close()
        choices.offered = (offer, *(one for one in choices.offered if one.run != name))
        wanted = (name, offer.default_checkpoint if checkpoint is None else checkpoint)
        if wanted != self.wanted:
            self._kept = None
        if self._kept is None:
            self.call_next(self.query_one(ConversationView).clear)
        self.wanted, self._device, self._adapter = wanted, device, offer.adapter
        self.query_one("#chat-refused").display = False
        self._loading = True
        self._show_loading("starting")
        self._load(*wanted, device)
        self.refresh_bindings()

    def ask_when_loaded(self, question: str) -> None:
        """Load what is wanted, unless that is under way, and ask then."""
        if self.wanted is not None and not self._loading:
            self.open_run(*self.wanted, device=self._device)
        if self._loading:
            self._question = question
            self._show_loading(self._loading_stage)
        else:
            self.query_one(Prompt).load_text(question)

    @work(thread=True, exclusive=True, group="chat-load", exit_on_error=False)
    def _load(self, name: str, checkpoint: int | None, device: str) -> None:
        worker = get_current_worker()
        try:
            choice = Choice(store.find(name), checkpoint, "cpu" if device == "cpu" else "auto")
        except QloraError as error:
            self.post_message(answering.ChatBroken(error))
            return

        def take(client: ChatClient) -> bool:
            with self._taking:
                if worker.is_cancelled:
                    return False
                self._client = client
            return True

        answering.load(choice, self.post_message, take, lambda: worker.is_cancelled)

    @work(thread=True, group="chat-close", exit_on_error=False)
    def _end(self, client: ChatClient) -> None:
        client.close()

    def _close(self) -> None:
        """Let go of the chat process, whether it loads or answers; its memory is free when it has ended."""
        with self._taking:
            self.workers.cancel_group(self, "chat-load")
            client, self._client = self._client, None
        self.session = None
        self.is_answering = self._loading = False
        self._question = ""
        self.refresh_bindings()
        if client is None:
            return
        if self.is_running:
            self._end(client)
        else:
            client.close()

    @property
    def is_loaded(self) -> bool:
        """Whether a model is in memory, or on its way there."""
        return self._loading or self.session is not None

    def unload(self) -> ChatClient | None:
        """Free the model's memory and keep the conversation. The process that ends now, if there was one."""
        if not self.is_loaded or self.wanted is None:
            return None
        client, question = self._client, self._question
        if self.session is not None:
            self._kept = _without_process(self.session)
            view = self.query_one(ConversationView)
            if len(view.turns) > len(self._kept.conversation.turns):  # the last question has no answer
                question = view.turns[-1].question
                self.call_later(view.drop_last)
        self._close()
        prompt = self.query_one(Prompt)
        if question and not prompt.text:
            prompt.load_text(question)
        self.status = f"{self.wanted[0]} is unloaded; it is loaded again when you ask."
        return client

    def release(self) -> None:
        """`unload` for a thread that needs the memory: returns when it is free."""
        client = self.app.call_from_thread(self.unload)
        if client is not None:
            client.close()

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
        return None if self.is_answering else self.session or self._kept

    # What the chat process says

    @on(answering.ChatLoading)
    def _loading_advanced(self, message: answering.ChatLoading) -> None:
        if self._loading:
            self._show_loading(message.text)

    def _show_loading(self, stage: str) -> None:
        """Show the loading stage, and the question that is asked after it."""
        self._loading_stage = stage
        waiting = f", then asks: {self._question}" if self._question else ""
        self.status = f"{stage}{waiting}"

    @on(answering.ChatReady)
    async def _ready(self, message: answering.ChatReady) -> None:
        session = message.session
        if session.client is not self._client:  # unloaded in this moment
            return
        self.session, self._loading = session, False
        if self._kept is not None:
            session.conversation, session.saved_as = self._kept.conversation, self._kept.saved_as
            self._kept = None
        session.conversation.set_system(self.system)
        session.sampling = self.sampling or session.sampling
        ready = session.ready
        assert ready is not None
        self._status_line = f"{ready.model} on {ready.device}, context {ready.context_max_tokens} tokens"
        self.status = self._status_line
        choices = self.query_one(ChatChoices)
        if set(choices.sides) <= set(ready.sides):
            session.answer_with(*choices.sides)
        else:
            choices.show_side("adapter")
        self.query_one(SamplingPanel).show(session.sampling)
        self.refresh_bindings()
        question, self._question = self._question, ""
        if question:
            await self.begin(question, session.ask(question))

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
            self.notify(message.problem, severity="error", markup=False)
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


def _without_process(session: ChatSession) -> ChatSession:
    """The same conversation as far as it was answered: a copy, which an answer still being received does not touch."""
    kept = ChatSession(session.client, session.sampling)
    kept.ready, kept.saved_as, kept.sides = session.ready, session.saved_as, session.sides
    answered = [turn for turn in session.conversation.turns if turn.answers]
    kept.conversation = Conversation(session.conversation.system, answered)
    return kept
