"""Talking to what was trained: the adapter, its base, or both side by side from one loaded copy."""

from collections.abc import Iterator
from typing import ClassVar

from textual import getters, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Button, Static
from textual.worker import get_current_worker

from qlora_tui import atomic
from qlora_tui.chat import transcript
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
from qlora_tui.ui.widgets.transcript_list import TranscriptList


class ChatPlace(Place):
    """A conversation with one run."""

    NAME = "chat"
    CSS_PATH = "chat.tcss"
    AUTO_FOCUS = "Prompt"
    HELP = """
# Chat

Choose a run and ask. The model is loaded once, in a process of its own that ends with this screen; **both** asks the
base and the trained model one after the other, each with a history of its own. Every conversation is saved in the run.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop", tooltip="Stop the answer and keep what was said"),
        Binding("ctrl+r", "retry", "Retry", id="chat.retry", tooltip="Answer the last question again"),
        Binding("ctrl+t", "edit", "Edit", id="chat.edit", tooltip="Take the last question back to change it"),
        Binding("ctrl+b", "side", "Base/adapter", id="chat.side", tooltip="Who answers: adapter, base or both"),
        Binding("ctrl+g", "copy", "Copy", id="chat.copy", tooltip="Copy the last answer"),
        Binding("ctrl+o", "open", "Open", id="chat.open", tooltip="Open a saved conversation", show=False),
        Binding("ctrl+n", "clear", "New", id="chat.new", tooltip="Begin a new conversation", show=False),
        Binding("f8", "panel", "Settings", id="chat.panel", tooltip="Show or hide sampling and system prompt"),
        Binding("f9", "export", "Export", id="chat.export", tooltip="Write the conversation as Markdown", show=False),
    ]

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

    def compose_place(self) -> ComposeResult:
        yield ChatChoices()
        with Horizontal(id="chat-body"):
            with Vertical(id="chat-talk"):
                yield ConversationView()
                with Horizontal(id="chat-refused"):
                    yield Static("", id="chat-reason", markup=False)
                    yield Button("Chat on the CPU", id="chat-on-cpu")
                yield Static("", id="chat-status", markup=False)
                yield Prompt(id="chat-prompt", placeholder="Ask something. Enter sends, Ctrl-J begins a new line.")
            yield SamplingPanel()

    def on_mount(self) -> None:
        self.query_one("#chat-refused").display = False
        self._offer_runs()

    def on_screen_resume(self) -> None:
        self._offer_runs()
        asked, self.workbench.chat_with = self.workbench.chat_with, None
        if asked is not None:
            self.open_run(*asked)

    def on_unmount(self) -> None:
        self._close()

    def watch_status(self, status: str) -> None:
        if self.is_mounted:
            self.query_one("#chat-status", Static).update(printable(status, one_line=True))

    def open_run(self, name: str, checkpoint: int | None = None, device: str = "auto") -> None:
        """Load this run, whatever was loaded before."""
        self._close()
        self.wanted = (name, checkpoint)
        self.query_one(ChatChoices).show(name, checkpoint)
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

    def _offer_runs(self) -> None:
        choices = self.query_one(ChatChoices)
        name = choices.offer(self.wanted[0] if self.wanted else None)
        if name is None:
            self.status = "No run has an adapter yet. F2, then the starter demo, makes one in about a minute."
        elif self.wanted is None:
            self.wanted = (name, only_checkpoint(name))
            choices.show(*self.wanted)
            self.status = f"{name} is loaded when you ask."

    # What a person does

    @on(ChatChoices.Chosen)
    def _chosen(self, event: ChatChoices.Chosen) -> None:
        self.open_run(event.run, event.checkpoint)

    @on(ChatChoices.SideChosen)
    def _side_chosen(self, event: ChatChoices.SideChosen) -> None:
        if self.session is not None:
            try:
                self.session.answer_with(*event.sides)
            except QloraError as error:
                self._complain(error)
                self.query_one(ChatChoices).only_adapter()

    @on(Button.Pressed, "#chat-on-cpu")
    def _on_cpu(self) -> None:
        if self.wanted is not None:
            self.open_run(*self.wanted, device="cpu")

    @on(SamplingPanel.Changed)
    def _sampling_changed(self, event: SamplingPanel.Changed) -> None:
        if self.session is not None:
            self.session.sampling = event.sampling

    @on(SamplingPanel.SystemChanged)
    def _system_changed(self, event: SamplingPanel.SystemChanged) -> None:
        if self.session is not None:
            self.session.conversation.set_system(event.text)
            self.notify("system prompt set" if event.text else "system prompt removed")

    @on(Prompt.Sent)
    async def _sent(self, event: Prompt.Sent) -> None:
        if self.is_answering or self._question:
            self.notify("Wait for the answer, or press Escape to stop it.")
        elif self.wanted is None:
            self.notify(self.status, markup=False)
        else:
            self.query_one(Prompt).clear()
            if self.session is not None:
                await self.begin(event.text, self.session.ask(event.text))
            else:
                if not self._loading:
                    self.open_run(*self.wanted)
                self._question = event.text

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

    def action_stop(self) -> None:
        """Stop the answer; without one, go to the question."""
        if self.is_answering and self.session is not None:
            self.session.cancel()
        else:
            self.query_one(Prompt).focus()

    async def action_retry(self) -> None:
        """Answer the last question again."""
        session = self._idle_session()
        if session is not None and session.conversation.turns:
            await self.query_one(ConversationView).drop_last()
            await self.begin(session.conversation.turns[-1].question, session.retry())

    async def action_edit(self) -> None:
        """Take the last question back into the prompt, its answer forgotten."""
        session = self._idle_session()
        if session is not None and session.conversation.turns:
            turn = session.conversation.undo()
            await self.query_one(ConversationView).drop_last()
            prompt = self.query_one(Prompt)
            prompt.load_text(turn.question)
            prompt.move_cursor(prompt.document.end)
            prompt.focus()

    def action_side(self) -> None:
        """Let the next ones answer: adapter, base, both."""
        self.query_one(ChatChoices).next_side()

    def action_copy(self) -> None:
        """Copy the last answer."""
        session = self._idle_session()
        if session is not None and session.conversation.turns:
            answers = session.conversation.turns[-1].answers.values()
            self.app.copy_to_clipboard("\n\n".join(answer.text.strip() for answer in answers))
            self.notify("copied")

    async def action_clear(self) -> None:
        """Begin a new conversation; what was said is in the run's folder."""
        session = self._idle_session()
        if session is not None:
            session.clear()
            await self.query_one(ConversationView).clear()

    def action_panel(self) -> None:
        """Show or hide sampling and system prompt."""
        self.toggle_class("-panel")

    @work(exit_on_error=False)
    async def action_open(self) -> None:
        """Choose one of the run's saved conversations and go on with it."""
        session = self._idle_session()
        if session is None:
            return
        path = await self.app.push_screen_wait(TranscriptList(transcript.saved(session.client.choice.run)))
        if path is None:
            return
        try:
            session.conversation = transcript.load(path)
        except QloraError as error:
            self._complain(error)
            return
        session.saved_as = path
        await self.query_one(ConversationView).show(session.conversation)
        self.query_one(SamplingPanel).show(session.sampling, session.conversation.system)

    def action_export(self) -> None:
        """Write the conversation as Markdown beside its transcript."""
        session = self._idle_session()
        if session is None or not session.conversation.turns:
            return
        try:
            path = session.save().with_suffix(".md")
            atomic.write_text(path, transcript.as_markdown(session.conversation))
        except QloraError as error:
            self._complain(error)
        else:
            self.notify(f"written to {path}", markup=False)

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
