"""The three ways to show a run's events: a live line on a terminal, plain lines without one, JSON for programs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from qlora_tui.cli.output import write_events
from qlora_tui.runs import events, narration
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.terminal import narrate, printable

_EVERY_S = 10.0
"""Without a terminal: at most one line about steps and one about a stage's progress in so many seconds."""


class Narrator(Protocol):
    def show(self, batch: list[events.AnyEvent], state: RunState) -> None:
        """Show new events; `state` is the state after all of them."""

    def catch_up(self, follower: Follower) -> None:
        """Say where a run is that was not watched from its beginning."""


@contextmanager
def narrator(*, as_json: bool) -> Iterator[Narrator]:
    """The narrator for this stdout and stderr."""
    if as_json:
        yield JsonLines()
    elif sys.stderr.isatty():
        from qlora_tui.cli.live import live_narrator

        with live_narrator() as live:
            yield live
    else:
        yield PlainLines()


class JsonLines:
    """Every event on stdout as it was written."""

    def show(self, batch: list[events.AnyEvent], state: RunState) -> None:
        write_events(batch)

    def catch_up(self, follower: Follower) -> None:
        """Nothing: the events say it."""


class PlainLines:
    """One line for each thing that happens, and now and then one about the steps."""

    def __init__(self) -> None:
        self._stage: tuple[str, str] | None = None
        self._stage_s = 0.0
        self._step_s = 0.0

    def show(self, batch: list[events.AnyEvent], state: RunState) -> None:
        for event in batch:
            if isinstance(event, events.Stage):
                self._show_stage(event)
            elif text := narration.line(event):
                narrate(printable(text, one_line=True))
        last = state.steps.last
        if last is not None and any(isinstance(event, events.Step) for event in batch):
            ended = state.plan is not None and last.step == state.plan.total_steps
            if ended or last.time_s - self._step_s >= _EVERY_S:
                self._step_s = last.time_s
                narrate(narration.step(state))

    def _show_stage(self, event: events.Stage) -> None:
        key = (event.stage, event.detail)
        if key == self._stage and event.time_s - self._stage_s < _EVERY_S:
            return
        if event.stage == "training" and self._stage == key:
            return
        self._stage, self._stage_s = key, event.time_s
        narrate(printable(narration.stage(event), one_line=True))

    def catch_up(self, follower: Follower) -> None:
        narrate(f"{follower.run.name} is {follower.status}")
        if follower.state.steps.last is not None:
            narrate(narration.step(follower.state))
