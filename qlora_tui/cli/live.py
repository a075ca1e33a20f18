"""Progress on a terminal: what happened scrolls by, what is going on stays in one line at the bottom."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.text import Text

from qlora_tui.cli.inert_console import InertConsole
from qlora_tui.runs import events, narration
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.terminal import printable


class _Status(ProgressColumn):
    """The task's description as plain text, cut at the edge of the terminal."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class LiveNarrator:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, batch: list[events.AnyEvent], state: RunState) -> None:
        for event in batch:
            text = narration.line(event)
            if text:
                self._say(text)
        self._status(state)

    def catch_up(self, follower: Follower) -> None:
        self._say(f"{follower.run.name} is {follower.status}")
        self._status(follower.state)

    def _say(self, text: str) -> None:
        self._progress.console.print(Text(printable(text, one_line=True)))

    def _status(self, state: RunState) -> None:
        stage = state.stage
        if stage is None:
            return
        if stage.stage == "training" and state.steps.last is not None and state.plan is not None:
            text, done = narration.step(state), state.step_number
        else:
            text, done = narration.stage(stage), stage.done or 0
        self._progress.update(self._task, description=printable(text, one_line=True), completed=done, total=stage.total)


@contextmanager
def live_narrator() -> Iterator[LiveNarrator]:
    """Draw on stderr for as long as the block lasts; the line is gone afterwards."""
    console = InertConsole(stderr=True)
    columns = (SpinnerColumn("line"), BarColumn(bar_width=20), _Status())
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as progress:
        yield LiveNarrator(progress, progress.add_task("starting", total=None))
