"""A live worker that does not respond: suspended by a signal, or waiting for a stalled disk."""

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from command_line import Cli, command, fake_worker, kill, until

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import heartbeat, jobs, queue, store
from qlora_tui.runs.heartbeat import Heart
from qlora_tui.runs.shelf import Shelf
from qlora_tui.runs.store import RunFolder

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]


@pytest.fixture
def run() -> RunFolder:
    return store.create("one", RunConfig(), {})


@pytest.fixture
def stopped(run: RunFolder, fake_worker: Behave) -> RunFolder:
    """A run whose worker was suspended by a signal."""
    fake_worker("wait")
    jobs.start(run)
    pid = until(run, lambda state: state.step_number > 0).pid
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        pass
    return run


def age(run: RunFolder, seconds: float) -> None:
    """Set the last heartbeat to this long ago."""
    then_s = time.time() - seconds
    os.utime(run.heartbeat, (then_s, then_s))


def test_responding_worker_is_not_reported(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, lambda state: state.step_number > 0)
    assert jobs.look(run).silence is None
    kill(run)
    age(run, 3600)
    assert jobs.look(run).silence is None, "a dead worker has crashed"


def test_suspended_worker_is_shown_with_the_command_to_continue_it(stopped: RunFolder, command: Cli) -> None:
    listed = command("runs", "list")
    assert "not responding" in listed.out
    assert "not responding since" in listed.err and "kill -CONT" in listed.err
    shown = command("runs", "show", "one")
    assert "running (training), not responding since" in shown.out and "kill -CONT" in shown.out
    assert '"not_responding_since_s": null' not in command("runs", "list", "--json").out
    (glimpse,) = Shelf().read()
    assert (glimpse.status, glimpse.shown_status) == ("running", "not responding")
    assert "kill -CONT" in glimpse.doing
    assert "one is not responding since" in queue.busy("two")


def test_suspended_worker_can_be_cancelled_immediately(stopped: RunFolder) -> None:
    said: list[str] = []
    assert jobs.cancel(stopped, said.append).status == "cancelled"
    assert said == ["cancelling one"], "it was continued and received the message"


def test_worker_without_heartbeat_is_not_responding_since_the_last_one(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, lambda state: state.step_number > 0)
    age(run, 3600)
    silence = jobs.look(run).silence
    assert silence is not None and abs(time.time() - silence.since_s - 3600) < 60
    assert "qlora-tui cancel one" in silence.advice


def test_heartbeat_of_an_earlier_worker_is_ignored(run: RunFolder) -> None:
    run.heartbeat.write_text(f'{{"pid": 1, "process_start_s": 1.0, "host": "{os.uname().nodename}"}}')
    age(run, 3600)
    with jobs.hold(run):
        assert jobs.look(run).silence is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', "\x00", "[" * 100_000])
def test_damaged_heartbeat_is_ignored(run: RunFolder, content: str) -> None:
    run.heartbeat.write_text(content)
    age(run, 3600)
    with jobs.hold(run):
        assert jobs.look(run).silence is None


def test_heartbeat_continues_while_the_main_thread_makes_progress(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s, worked = 1000.0, "1"
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock_s)
    monkeypatch.setattr(heartbeat, "_runtime", lambda thread: worked)
    heart = Heart(run)

    def beats(written_events: int) -> bool:
        nonlocal clock_s
        clock_s += 40.0
        age(run, 3600)
        heart.beat(written_events)
        return time.time() - run.heartbeat.stat().st_mtime < 1800

    assert beats(1)
    assert beats(1), "silent for less than a minute"
    assert not beats(1), "neither an event nor work for more than a minute"
    assert beats(2)
    worked = "2"
    assert beats(2)
    worked = "3"
    assert beats(2)
    monkeypatch.setattr(heartbeat, "_runtime", lambda thread: None)
    assert all(beats(2) for _ in range(5)), "without kernel counts, only the existence of the thread is known"
