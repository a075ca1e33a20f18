"""Talking to what was trained: the adapter, its base, or both side by side from one loaded copy."""

from contextlib import suppress
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.reactive import var
from textual.widgets import Button, Select, Static

from qlora_tui import atomic
from qlora_tui.chat import offers, transcript
from qlora_tui.chat.offers import Offer
from qlora_tui.errors import QloraError
from qlora_tui.runs import store
from qlora_tui.ui.key_routing import DIALOG
from qlora_tui.ui.screens.session_place import SessionPlace
from qlora_tui.ui.widgets.chat_choices import ChatChoices
from qlora_tui.ui.widgets.conversation_view import ConversationView
from qlora_tui.ui.widgets.prompt import Prompt
from qlora_tui.ui.widgets.sampling_panel import SamplingPanel
from qlora_tui.ui.widgets.suggestions import Suggestions
from qlora_tui.ui.widgets.transcript_list import TranscriptList

_MOST_SUGGESTIONS = 3


class ChatPlace(SessionPlace):
    """A conversation with one run."""

    NAME = "chat"
    CSS_PATH = "chat.tcss"
    AUTO_FOCUS = "Prompt"
    HELP = """
# Chat

Choose a run and ask. The model is loaded once, in a process of its own; **both** asks the base and the trained model
one after the other, each with a history of its own. Every conversation is saved in the run.

The model stays in memory while you look at other places. **Ctrl+L** unloads it, and so does the start of a run; the
conversation stays, and the next question loads the model again.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop", tooltip="Stop the answer and keep what was said"),
        Binding("ctrl+r", "retry", "Retry", id="chat.retry", tooltip="Answer the last question again"),
        Binding("ctrl+t", "edit", "Edit", id="chat.edit", tooltip="Take the last question back to change it"),
        Binding("ctrl+b", "side", "Base/adapter", id="chat.side", tooltip="Who answers: adapter, base or both"),
        Binding("ctrl+g", "copy", "Copy", id="chat.copy", tooltip="Copy the last answer"),
        Binding("ctrl+l", "unload", "Unload", id="chat.unload", tooltip="Free the model's memory; the words stay"),
        Binding("ctrl+o", "open", "Open", id="chat.open", tooltip="Open a saved conversation", show=False),
        Binding("ctrl+n", "clear", "New", id="chat.new", tooltip="Begin a new conversation", show=False),
        Binding("f8", "panel", "Settings", id="chat.panel", tooltip="Show or hide sampling and system prompt"),
        Binding("f9", "export", "Export", id="chat.export", tooltip="Write the conversation as Markdown", show=False),
    ]

    class OffersRead(Message):
        """The runs available for chat were read."""

        def __init__(self, offered: tuple[Offer, ...]) -> None:
            super().__init__()
            self.offered = offered

    class SuggestionsRead(Message):
        """Suggested questions for a run."""

        def __init__(self, name: str, questions: tuple[str, ...], is_demo: bool) -> None:
            super().__init__()
            self.name = name
            self.questions = questions
            self.is_demo = is_demo

    suggested: var[tuple[str, ...]] = var(())
    """Sample prompts of the run."""

    def __init__(self) -> None:
        super().__init__()
        self._side_is_chosen = False
        """Whether the user chose who answers."""

    def compose_place(self) -> ComposeResult:
        yield ChatChoices().data_bind(ChatPlace.wanted)
        with Horizontal(id="chat-body"):
            with Vertical(id="chat-talk"):
                yield ConversationView()
                with Horizontal(id="chat-refused"):
                    yield Static("", id="chat-reason", markup=False)
                    yield Button("Chat on the CPU", id="chat-on-cpu")
                yield Static("", id="chat-status", markup=False)
                yield Suggestions()
                yield Prompt(id="chat-prompt", placeholder=Prompt.PLACEHOLDER)
            yield SamplingPanel()

    def on_mount(self) -> None:
        self.query_one("#chat-refused").display = False

    def on_screen_resume(self) -> None:
        asked, self.workbench.chat_with = self.workbench.chat_with, None
        if asked is not None:
            self.open_asked(*asked)
        self._read_offers()

    @work(thread=True, exclusive=True, group="chat-offers", exit_on_error=False)
    def _read_offers(self) -> None:
        self.post_message(self.OffersRead(offers.offers()))

    @on(OffersRead)
    def _offer(self, message: OffersRead) -> None:
        self.query_one(ChatChoices).offered = message.offered
        if self.wanted is not None:
            return
        if message.offered:
            newest = message.offered[0]
            self.wanted = (newest.run, newest.default_checkpoint)
            self.status = f"{newest.run} is loaded when you ask."
        else:
            self.status = "No run has an adapter yet. F2, then the starter demo, makes one in about a minute."

    # Suggested questions

    def watch_wanted(self, old: tuple[str, int | None] | None, wanted: tuple[str, int | None] | None) -> None:
        if wanted is not None and (old is None or old[0] != wanted[0]):
            self.suggested = ()
            self._read_suggestions(wanted[0])

    @work(thread=True, exclusive=True, group="chat-suggestions", exit_on_error=False)
    def _read_suggestions(self, name: str) -> None:
        from qlora_tui.starter import demo

        with suppress(QloraError):
            config = store.find(name).load_config()
            prompts = tuple(dict.fromkeys(config.training.sample_prompts))[:_MOST_SUGGESTIONS]
            self.post_message(self.SuggestionsRead(name, prompts, demo.is_demo(config)))

    @on(SuggestionsRead)
    def _suggest(self, message: SuggestionsRead) -> None:
        if self.wanted is None or message.name != self.wanted[0]:
            return
        self.suggested = message.questions
        if not self._side_is_chosen:
            choices = self.query_one(ChatChoices)
            choices.show_side("both" if message.is_demo else "adapter")
            if self.session is not None:
                self.session.answer_with(*choices.sides)

    def watch_suggested(self) -> None:
        self._offer_questions()

    @on(ConversationView.Changed)
    def _offer_questions(self) -> None:
        """Suggest the remaining questions until the user asks another one."""
        if not self.is_mounted:
            return
        asked = [turn.question for turn in self.query_one(ConversationView).turns]
        left = [question for question in self.suggested if question not in asked]
        is_tour = set(asked) <= set(self.suggested)
        self.query_one(Suggestions).questions = tuple(left) if is_tour else ()
        self.query_one(Prompt).suggest(left[0] if left and is_tour else "")

    @on(Suggestions.Chosen)
    async def _suggestion_chosen(self, event: Suggestions.Chosen) -> None:
        self.query_one(Prompt).focus()
        await self._asked(event.question)

    # What a person does

    @on(ChatChoices.Chosen)
    def _chosen(self, event: ChatChoices.Chosen) -> None:
        self.open_run(event.run, event.checkpoint)

    @on(ChatChoices.SideChosen)
    def _side_chosen(self, event: ChatChoices.SideChosen) -> None:
        self._side_is_chosen = True
        if self.session is not None:
            try:
                self.session.answer_with(*event.sides)
            except QloraError as error:
                self._complain(error)
                self.query_one(ChatChoices).show_side("adapter")

    @on(Button.Pressed, "#chat-on-cpu")
    def _on_cpu(self) -> None:
        if self.wanted is not None:
            self._to_prompt()
            self.open_run(*self.wanted, device="cpu")

    @on(SamplingPanel.Changed)
    def _sampling_changed(self, event: SamplingPanel.Changed) -> None:
        self.sampling = event.sampling
        if self.session is not None:
            self.session.sampling = event.sampling

    @on(SamplingPanel.SystemChanged)
    def _system_changed(self, event: SamplingPanel.SystemChanged) -> None:
        self.system = event.text
        if self.session is not None:
            self.session.conversation.set_system(event.text)
        self.notify("system prompt set" if event.text else "system prompt removed")

    @on(Prompt.Sent)
    async def _sent(self, event: Prompt.Sent) -> None:
        await self._asked(event.text)

    async def _asked(self, question: str) -> None:
        if self.is_answering or self._question:
            self.notify("Wait for the answer, or press Escape to stop it.")
        elif self.wanted is None:
            self.notify(self.status, markup=False)
        else:
            self.query_one(Prompt).clear()
            if self.session is not None:
                await self.begin(question, self.session.ask(question))
            else:
                self.ask_when_loaded(question)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is nothing to unload without a model."""
        return self.is_loaded if action == "unload" else True

    def action_unload(self) -> None:
        """Free the memory of the model; the next question loads it again."""
        self.unload()

    def action_stop(self) -> None:
        """Stop the answer; without one, go back to the question."""
        if self.is_answering and self.session is not None:
            self.session.cancel()
        else:
            self._to_prompt()

    def _to_prompt(self) -> None:
        """Focus the question, which the settings hide in a narrow terminal."""
        if not self.query_one("#chat-talk").display:
            self.remove_class("-panel")
        self.call_after_refresh(self.query_one(Prompt).focus)

    async def action_retry(self) -> None:
        """Answer the last question again."""
        session = self._idle_session()
        if session is not None and session.conversation.turns:
            await self.query_one(ConversationView).drop_last()
            if session is self.session:
                await self.begin(session.conversation.turns[-1].question, session.retry())
            else:
                self.ask_when_loaded(session.conversation.undo().question)

    async def action_edit(self) -> None:
        """Take the last question back into the prompt, its answer forgotten."""
        session = self._idle_session()
        if session is not None and session.conversation.turns:
            turn = session.conversation.undo()
            await self.query_one(ConversationView).drop_last()
            prompt = self.query_one(Prompt)
            prompt.load_text(turn.question)
            prompt.move_cursor(prompt.document.end)
            self._to_prompt()

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
        """Show or hide sampling and system prompt, with the focus where it can be seen."""
        self.toggle_class("-panel")
        self.call_after_refresh(self._focus_panel)

    def _focus_panel(self) -> None:
        panel = self.query_one(SamplingPanel)
        if panel.display:
            panel.query_one(Select).focus()
        else:
            self.query_one(Prompt).focus()

    @work(group=DIALOG, exclusive=True, exit_on_error=False)
    async def action_open(self) -> None:
        """Choose one of the run's saved conversations and go on with it."""
        session = self._idle_session()
        if session is None:
            return
        path = await self.app.push_screen_wait(TranscriptList(transcript.saved(session.client.choice.run)))
        session = self._idle_session()  # it may have been loaded or unloaded in the meantime
        if path is None or session is None:
            return
        try:
            session.conversation = transcript.load(path)
        except QloraError as error:
            self._complain(error)
            return
        session.saved_as = path
        self.system = session.conversation.system
        await self.query_one(ConversationView).show(session.conversation)
        self.query_one(SamplingPanel).show(session.sampling, self.system)

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
