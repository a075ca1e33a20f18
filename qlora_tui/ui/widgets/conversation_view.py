"""The turns of a conversation, the newest in view."""

from textual.containers import VerticalScroll
from textual.message import Message

from qlora_tui.chat.protocol import Side
from qlora_tui.chat.transcript import Conversation
from qlora_tui.ui.widgets.chat_turn import TurnView


class ConversationView(VerticalScroll):
    """Follows the answer that is being given until a person scrolls away."""

    DEFAULT_CSS = """
    ConversationView { height: 1fr; padding: 1 1 0 1; }
    """

    class Changed(Message):
        """The turns have changed."""

    def on_mount(self) -> None:
        self.anchor()

    @property
    def turns(self) -> list[TurnView]:
        return list(self.query(TurnView))

    async def open_turn(self, question: str, sides: tuple[Side, ...]) -> None:
        """Show a question whose answers are still to come."""
        await self.mount(TurnView(question, sides))
        self.post_message(self.Changed())

    async def drop_last(self) -> None:
        """Take the last turn away."""
        await self.turns[-1].remove()
        self.post_message(self.Changed())

    async def clear(self) -> None:
        """Show nothing."""
        await self.remove_children()
        self.post_message(self.Changed())

    async def show(self, conversation: Conversation) -> None:
        """Show a conversation that was held before."""
        await self.clear()
        for turn in conversation.turns:
            view = TurnView(turn.question, tuple(turn.answers))
            await self.mount(view)
            await view.show(turn)
        self.post_message(self.Changed())
