"""Home: this machine, the runs that live or lived last, and the one obvious next step."""

import shutil
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from qlora_tui.errors import QloraError
from qlora_tui.ui import messages
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.machine_panel import MachinePanel, Surroundings
from qlora_tui.ui.widgets.next_step import NextStep, next_step

if TYPE_CHECKING:  # What reads the runs and the machine is imported by the thread that does so, after the first frame.
    from qlora_tui.runs.shelf import Glimpse, Shelf

_EVERY_S = 2.0
_CARDS = 8


class HomeRead(Message):
    """The machine and the runs were looked at."""

    def __init__(self, surroundings: Surroundings, glimpses: "tuple[Glimpse, ...]") -> None:
        super().__init__()
        self.surroundings = surroundings
        self.glimpses = glimpses


class HomePlace(Place):
    """Where one arrives."""

    NAME = "home"
    CSS_PATH = "home.tcss"
    AUTO_FOCUS = "#next"
    HELP = """
### Home
What this machine can do, what your runs are doing, and what to do next. Runs go on without this program: quit at any
time and come back from any shell.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "go_setup", "New run", id="home.new", tooltip="Set up a run"),
        Binding("d", "demo", "Starter demo", id="home.demo", tooltip="Fine-tune the bundled model in two minutes"),
        Binding("space", "next", "Next step", show=False, id="home.next", tooltip="Take the step that is offered"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shelf: Shelf | None = None

    def compose_place(self) -> ComposeResult:
        with VerticalScroll(id="home", can_focus=False):
            with Vertical(id="home-side"):
                yield NextStep()
                yield MachinePanel()
            with Vertical(id="home-runs") as runs:
                runs.border_title = "Runs"
                yield Static("Reading the runs...", id="no-runs")

    def on_mount(self) -> None:
        self.set_interval(_EVERY_S, self._look)
        self.watch(self.app, "starting", self._starting, init=False)

    def on_screen_resume(self) -> None:
        """Coming back shows the present state at once."""
        self.call_after_refresh(self._look)

    def _starting(self, starting: str) -> None:
        self.query_one(NextStep).starting = bool(starting)

    def _look(self) -> None:
        if self.is_current:
            self._read()

    @work(thread=True, exclusive=True, group="home", exit_on_error=False)
    def _read(self) -> None:
        from qlora_tui.runs.shelf import Shelf

        self._shelf = self._shelf or Shelf()
        self.post_message(HomeRead(surroundings(), self._shelf.read()))

    @on(HomeRead)
    async def _show(self, message: HomeRead) -> None:
        self.query_one(MachinePanel).surroundings = message.surroundings
        self.query_one(NextStep).step = next_step(message.glimpses)
        live = [glimpse for glimpse in message.glimpses if glimpse.live]
        ended = [glimpse for glimpse in message.glimpses if not glimpse.live]
        await self._show_cards([*live, *ended][:_CARDS])

    async def _show_cards(self, glimpses: "list[Glimpse]") -> None:
        from qlora_tui.ui.widgets.run_card import RunCard

        nothing = self.query_one("#no-runs", Static)
        nothing.update("No runs yet. Each one will be a card here.")
        nothing.display = not glimpses
        cards = list(self.query(RunCard))
        for card, glimpse in zip(cards, glimpses, strict=False):
            card.glimpse = glimpse
        for card in cards[len(glimpses) :]:
            await card.remove()
        if more := [RunCard(glimpse) for glimpse in glimpses[len(cards) :]]:
            await self.query_one("#home-runs").mount_all(more)

    @on(NextStep.Chosen)
    def _take(self, message: NextStep.Chosen) -> None:
        step = message.step
        match step.kind:
            case "demo":
                self.action_demo()
            case "setup":
                self.action_go_setup()
            case "chat":
                self.post_message(messages.ChatRequested(step.run or ""))
            case _:
                self.post_message(messages.RunRequested(step.run or ""))

    def action_next(self) -> None:
        """Take the offered step."""
        self.query_one(NextStep).take()

    def action_go_setup(self) -> None:
        """Set up a run."""
        self.post_message(messages.PlaceRequested("setup"))

    def action_demo(self) -> None:
        """Start the starter demo."""
        from qlora_tui.starter import demo

        try:
            self.post_message(messages.StartRequested(demo.config(), preset=demo.PRESET))
        except QloraError as error:
            self.post_message(messages.Complained(error))


def surroundings() -> Surroundings:
    """Read the machine, and the disk of the runs. Blocking."""
    from qlora_tui import hardware, paths

    folder = paths.runs()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return Surroundings(hardware.snapshot(), disk.free, disk.total)
