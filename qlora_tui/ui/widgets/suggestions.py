"""Suggested first questions, selected with one key or click."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import var
from textual.widgets import Button, Static

from qlora_tui.terminal import printable


class Suggestions(Vertical):
    """One line per question that was not asked yet; hidden if there are none."""

    HELP = """
## Suggested questions

The sample prompts of the run. Press **Enter** in an empty prompt to ask the first one, or click any of them.
"""
    DEFAULT_CSS = """
    Suggestions {
        height: auto; padding: 0 1; display: none;
        &.-some { display: block; }
        Static { height: 1; color: $text-muted; }
        Button { width: auto; max-width: 100%; background: transparent; color: $text-accent; text-style: none; }
    }
    """
    questions: var[tuple[str, ...]] = var(())

    class Chosen(Message):
        """Ask this."""

        def __init__(self, question: str) -> None:
            super().__init__()
            self.question = question

    def compose(self) -> ComposeResult:
        yield Static("Try one of these:")

    async def watch_questions(self) -> None:
        self.set_class(bool(self.questions), "-some")
        await self.query(Button).remove()
        texts = [printable(question, one_line=True) for question in self.questions]
        await self.mount_all([Button(Content(f"› {text}"), compact=True, name=question)
                              for text, question in zip(texts, self.questions, strict=True)])  # fmt: skip

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.post_message(self.Chosen(event.button.name or ""))
