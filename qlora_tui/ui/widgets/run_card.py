"""One run as a card: what it is doing, how far it is, and its loss as a small curve."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click
from textual.reactive import reactive
from textual.widgets import Sparkline, Static

from qlora_tui.runs.narration import number, short
from qlora_tui.runs.shelf import Glimpse
from qlora_tui.terminal import printable
from qlora_tui.ui.messages import RunRequested
from qlora_tui.ui.statuses import status_mark


class RunCard(Vertical, can_focus=True):
    """Opens its run by enter or a click."""

    HELP = """
### A run
The curve is the training **loss** from the first step to the last. Enter opens the run, live or ended: everything it
said is in its folder. The worker does not need this program; it continues when you quit.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open run", id="card.open", tooltip="Show this run"),
        Binding("j,down", "app.focus_next", "Next", show=False, id="list.next-card", tooltip="Next card"),
        Binding("k,up", "app.focus_previous", "Previous", show=False, id="list.previous-card", tooltip="Previous card"),
    ]
    DEFAULT_CSS = """
    RunCard {
        height: auto; padding: 0 1; border: round $foreground 25%; border-title-color: $foreground;
        &:hover { background: $surface; }
        &:focus { border: round $border; background: $surface; }
        &.-live { border: round $success; }
        &.-live:focus { border: double $success; }
        Static { height: 1; width: 1fr; text-overflow: ellipsis; text-wrap: nowrap; }
        .card-detail { color: $text-muted; }
        Sparkline { height: 1; width: 1fr; }
        Sparkline > .sparkline--max-color { color: $loss; }
        Sparkline > .sparkline--min-color { color: $loss; }
    }
    """
    glimpse: reactive[Glimpse | None] = reactive(None)

    def __init__(self, glimpse: Glimpse) -> None:
        super().__init__()
        self.set_reactive(RunCard.glimpse, glimpse)

    def compose(self) -> ComposeResult:
        yield Static(classes="card-head")
        yield Sparkline([])
        yield Static(classes="card-detail")

    def on_mount(self) -> None:
        self.watch_glimpse(self.glimpse)

    def watch_glimpse(self, glimpse: Glimpse | None) -> None:
        """Show the run as it is now."""
        if glimpse is None or not self.children:
            return
        self.border_title = Content(printable(glimpse.name, one_line=True)).plain.replace("[", "\\[")
        self.set_class(glimpse.live, "-live")
        self.query_one(".card-head", Static).update(_head(glimpse))
        spark = self.query_one(Sparkline)
        spark.data = glimpse.curve
        spark.display = len(glimpse.curve) > 1
        self.query_one(".card-detail", Static).update(Content(_detail(glimpse)))

    @on(Click)
    def _clicked(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Ask for the run."""
        if self.glimpse is not None:
            self.post_message(RunRequested(self.glimpse.name))


def _head(glimpse: Glimpse) -> Content:
    total = f"/{glimpse.total_steps:,}" if glimpse.total_steps else ""
    facts = [f"step {glimpse.step:,}{total}" if glimpse.step else ""]
    facts.append(f"loss {number(glimpse.loss)}" if glimpse.loss is not None else "")
    facts.append(f"eval {number(glimpse.eval_loss)}" if glimpse.eval_loss is not None else "")
    facts.append(glimpse.left)
    return Content.assemble(status_mark(glimpse.shown_status), "  ", "  ".join(filter(None, facts)))


def _detail(glimpse: Glimpse) -> str:
    if glimpse.status in ("failed", "crashed", "unreadable", "running", "starting") and glimpse.doing:
        return printable(short(glimpse.doing), one_line=True)
    return printable(" on ".join(filter(None, (glimpse.model, glimpse.data))), one_line=True)
