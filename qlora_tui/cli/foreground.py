"""A run in the foreground: its progress on stderr, what Ctrl-C means, and its outcome."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from qlora_tui.cli.narrators import Narrator, narrator
from qlora_tui.cli.outcome import report
from qlora_tui.errors import RunConflictError
from qlora_tui.runs import jobs
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.requests import Request
from qlora_tui.runs.store import RunFolder
from qlora_tui.terminal import narrate

_SILENCE_LOOK_S = 1.0
"""Seconds between two checks of whether the worker responds."""


_TERMINATED = "stopping with a checkpoint after SIGTERM"


class Interrupts:
    """Counts Ctrl-C and records SIGTERM. The third Ctrl-C is not caught, so that the user can always exit."""

    def __init__(self) -> None:
        self.ctrl_c = 0
        self.terminated = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.terminated = True
            return
        self.ctrl_c += 1
        if self.ctrl_c > 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Catch Ctrl-C and SIGTERM during the block."""
    caught = Interrupts()
    before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_to_end(run: RunFolder, start: Callable[[], None], *, as_json: bool) -> Follower:
    """Start a worker and print its progress until it ends.

    Ctrl-C and SIGTERM stop it with a checkpoint, a second Ctrl-C cancels it. If this process is killed, as by SIGHUP
    when the terminal is closed, the worker continues.

    Raises the error of the outcome, or SystemExit after SIGTERM.
    """
    follower = Follower(run)
    follower.catch_up()
    with interrupts() as caught:
        start()
        with narrator(as_json=as_json) as shown:
            _follow(follower, shown, caught)
        if caught.ctrl_c > 1:
            cancel(run)
    follower.catch_up()
    report(follower)
    if caught.terminated and follower.status != "finished":
        raise SystemExit(128 + signal.SIGTERM)
    return follower


def _follow(follower: Follower, shown: Narrator, caught: Interrupts) -> None:
    asked = False
    for batch in batches(follower):
        shown.show(batch, follower.state)
        if caught.ctrl_c > 1:
            return
        if not asked and follower.alive and (caught.ctrl_c or caught.terminated):
            narrate("stopping with a checkpoint; Ctrl-C again cancels the run" if caught.ctrl_c else _TERMINATED)
            with suppress(RunConflictError):  # it has just ended
                Request(follower.run, "stop_and_save")
            asked = True


def batches(follower: Follower) -> Iterator[list[AnyEvent]]:
    """Yield the batches of a follower. Report when the worker stops and resumes responding."""
    silent = False
    looked_s = 0.0
    for batch in follower.batches():
        yield batch
        if time.monotonic() - looked_s < _SILENCE_LOOK_S:
            continue
        looked_s = time.monotonic()
        silence = follower.silence
        if silence is not None and not silent:
            narrate(f"{follower.run.name} is {silence}. {silence.advice}")
        elif silence is None and silent:
            narrate(f"{follower.run.name} responds again")
        silent = silence is not None


def cancel(run: RunFolder) -> None:
    """Cancel a run that may have ended in the meantime."""
    try:
        jobs.cancel(run, narrate)
    except RunConflictError:
        if jobs.is_alive(run):
            raise


def watch(run: RunFolder, *, as_json: bool) -> None:
    """Follow a run; Ctrl-C does not affect it. Raises the error of its outcome."""
    follower = Follower(run)
    try:
        with narrator(as_json=as_json) as shown:
            if not as_json:
                follower.catch_up()
                shown.catch_up(follower)
            for batch in batches(follower):
                shown.show(batch, follower.state)
    except KeyboardInterrupt:
        say_it_goes_on(run)
        return
    report(follower)


def say_it_goes_on(run: RunFolder) -> None:
    """Say how to watch the run again."""
    narrate(f"{run.name} continues in the background. To watch it again: qlora-tui watch {run.name}")
