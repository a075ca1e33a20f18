"""One question and what was answered, each answer streamed as Markdown."""

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from qlora_tui.chat.protocol import Done, Side
from qlora_tui.chat.transcript import Answer, Turn
from qlora_tui.terminal import printable

_TWO_COLUMNS = 64
"""Two answers are side by side from this width on."""


class AnswerView(Vertical):
    """What one side says. Shown as it comes; links lead nowhere, control characters are made visible."""

    DEFAULT_CSS = """
    AnswerView {
        width: 1fr; height: auto; padding: 0 1; border-left: outer $secondary;
        border-title-color: $text-muted; border-subtitle-color: $text-muted;
        &.-base { border-left: outer $foreground 30%; }
        Markdown { margin: 0; padding: 0; background: transparent; }
        .answer-facts { color: $text-muted; height: 1; text-overflow: ellipsis; text-wrap: nowrap; }
    }
    """

    def __init__(self, side: Side, *, named: bool) -> None:
        super().__init__(classes=f"-{side}")
        self.side = side
        self._named = named
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield Markdown(open_links=False)
        yield Static(self._facts("answering"), markup=False, classes="answer-facts")

    async def add(self, text: str) -> None:
        """Append a piece of the answer."""
        if self._stream is None:
            self._stream = Markdown.get_stream(self.query_one(Markdown))
        await self._stream.write(printable(text))

    async def end(self, facts: str) -> None:
        """No more will come; `facts` say how it went."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        self.query_one(".answer-facts", Static).update(self._facts(facts))

    async def show(self, answer: Answer) -> None:
        """A whole answer at once."""
        await self.query_one(Markdown).update(printable(answer.text))
        await self.end(f"{answer.tokens} tokens at {answer.tokens_per_s:.0f} tokens/s")

    def _facts(self, text: str) -> str:
        return f"{self.side}: {text}" if self._named else text


class TurnView(Vertical):
    """One turn of the conversation."""

    DEFAULT_CSS = """
    TurnView {
        height: auto; margin-bottom: 1;
        .turn-question { width: 1fr; padding: 0 1; background: $boost; text-style: bold; margin-bottom: 1; }
        Horizontal { height: auto; }
        &.-stacked Horizontal { layout: vertical; }
    }
    """

    def __init__(self, question: str, sides: tuple[Side, ...]) -> None:
        super().__init__()
        self.question = question
        self.sides = sides

    def compose(self) -> ComposeResult:
        yield Static(printable(self.question), markup=False, classes="turn-question")
        with Horizontal():
            for side in self.sides:
                yield AnswerView(side, named=len(self.sides) > 1)

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width < _TWO_COLUMNS, "-stacked")

    def answer(self, side: Side) -> AnswerView:
        """The view of one side's answer."""
        return self.query_one(f"AnswerView.-{side}", AnswerView)

    async def show(self, turn: Turn) -> None:
        """Fill in answers that are there already."""
        for side, answer in turn.answers.items():
            await self.answer(side).show(answer)


def facts_of(done: Done) -> str:
    """How an answer ended and what it took."""
    ends = {"stop": "", "length": ", cut at the longest answer", "cancelled": ", stopped"}
    if done.reason == "length" and done.context_used_tokens >= done.context_max_tokens:
        ends["length"] = ", cut: the context is full"
    return f"{done.tokens} tokens at {done.tokens_per_s:.0f} tokens/s{ends[done.reason]}"
