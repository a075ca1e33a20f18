"""`qlora-tui watch` on a terminal: the panel of a run below the prompt, until it ends or somebody leaves."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from command_line import PROGRAM, fake_worker, kill
from run_material import beginning, training, written
from run_screen import until

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import control, jobs, store
from qlora_tui.ui.watch import WatchApp
from qlora_tui.ui.widgets.run_progress import RunProgress

__all__ = ["fake_worker"]
Behave = Callable[[str], None]


@pytest.fixture
def waiting(fake_worker: Behave) -> store.RunFolder:
    fake_worker("wait")
    run = store.create("one", RunConfig(), {})
    jobs.start(run)
    return run


async def test_it_shows_the_run_and_ends_with_it(waiting: store.RunFolder) -> None:
    app = WatchApp(waiting)
    async with app.run_test(size=(100, 20)) as pilot:
        await until(pilot, lambda: "1 of 4 steps" in str(app.query_one(RunProgress).visual))
        control.send(waiting.control, "stop_and_save")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value is True


async def test_leaving_it_leaves_the_run_alone(waiting: store.RunFolder) -> None:
    app = WatchApp(waiting)
    async with app.run_test(size=(80, 16)) as pilot:
        await until(pilot, lambda: app.view is not None)
        await pilot.press("]", "q")
    assert app.return_value is False
    assert jobs.is_alive(waiting)


async def test_a_dead_worker_ends_it() -> None:
    run = written("one", [*beginning(), *training(20)])
    app = WatchApp(run)
    async with app.run_test(size=(80, 16)) as pilot:
        await until(pilot, lambda: app.return_value is not None)
    assert app.view is not None and app.view.status == "crashed"


def in_terminal(terminal: str, *words: str) -> tuple["subprocess.Popen[bytes]", int]:
    """`qlora-tui` with these words on a terminal of this kind, and our end of it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": terminal}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, words: bytes) -> bytes:
    """What was written up to these words."""
    shown = b""
    while words not in shown:
        shown += os.read(terminal, 4096)
    return shown


def test_a_terminal_that_can_shows_the_panel_and_ctrl_c_leaves_it(waiting: store.RunFolder) -> None:
    process, ours = in_terminal("xterm-256color", "watch", "one")
    read_until(ours, b"Leave; the run continues")
    os.write(ours, b"\x03")
    read_until(ours, b"one continues in the background")
    assert process.wait(30) == 0
    assert jobs.is_alive(waiting)
    os.close(ours)


def test_a_terminal_that_cannot_shows_lines(waiting: store.RunFolder) -> None:
    process, ours = in_terminal("dumb", "watch", "one")
    read_until(ours, b"one is running")
    process.send_signal(signal.SIGINT)
    read_until(ours, b"one continues in the background")
    assert process.wait(30) == 0
    os.close(ours)


def test_the_workbench_does_not_open_on_a_terminal_that_cannot_show_it() -> None:
    process, ours = in_terminal("dumb")
    assert b"\x1b" not in read_until(ours, b"TERM=dumb")
    assert process.wait(30) == 2
    os.close(ours)


def test_the_outcome_stays_below_the_prompt(waiting: store.RunFolder) -> None:
    process, ours = in_terminal("xterm-256color", "watch", "one")
    read_until(ours, b"Leave; the run continues")
    kill(waiting)
    read_until(ours, b"error: the worker of one died at step 1")
    assert process.wait(30) == 1
    os.close(ours)
