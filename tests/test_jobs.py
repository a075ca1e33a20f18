"""Workers as processes: alive or dead, asked, stopped, killed, two on one folder."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import fake_worker, kill, until

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import EnvironmentProblem, RunConflictError, StorageError
from qlora_tui.runs import control, events, jobs, processes, store
from qlora_tui.runs.event_log import EventReader, EventWriter
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.requests import Request
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui import run_actions

__all__ = ["fake_worker"]
Behave = Callable[[str], None]


@pytest.fixture
def run() -> RunFolder:
    return store.create("one", RunConfig(), {})


def stepped(state: RunState) -> bool:
    return state.step_number > 0


def followed(run: RunFolder) -> Follower:
    """A follower that has seen the run's end."""
    follower = Follower(run)
    for _ in follower.batches():
        pass
    return follower


def test_a_run_nobody_started_is_created_and_dead(run: RunFolder) -> None:
    job = jobs.look(run)
    assert (job.status, job.alive) == ("created", False)


def test_a_worker_leads_its_own_session_and_is_followed_to_its_end(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    state = until(run, stepped)
    assert jobs.look(run).status == "running"
    assert os.getsid(state.pid) == state.pid != os.getsid(0)
    control.send(run.control, "stop_and_save")
    assert followed(run).status == "stopped"


def test_the_live_view_and_the_reopened_one_are_the_same(run: RunFolder, fake_worker: Behave) -> None:
    jobs.start(run)
    live = followed(run)
    assert live.status == "finished"
    assert live.state == jobs.replay(run)
    assert live.state.step_number == 4


def test_a_killed_worker_is_a_crash_until_it_is_resumed(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, stepped)
    request = Request(run, "save_now")
    until(run, lambda state: bool(state.checkpoints))
    kill(run)
    assert jobs.look(run).status == "crashed"
    assert followed(run).status == "crashed"
    with pytest.raises(RunConflictError, match="not running"):
        jobs.ask(run, "stop_and_save")
    assert request.heard(jobs.replay(run))

    fake_worker("finish")
    jobs.start(run)
    ended = followed(run)
    assert (ended.status, ended.state.attempt, ended.state.step_number) == ("finished", 2, 4)
    numbers = [event.seq for event in EventReader(run.events).read()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_messages_to_an_earlier_worker_do_not_reach_the_next(run: RunFolder, fake_worker: Behave) -> None:
    control.send(run.control, "cancel")
    jobs.start(run)
    assert followed(run).status == "finished"


def test_a_second_worker_on_the_same_folder_is_refused(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, stepped)
    before = run.events.read_bytes()
    with pytest.raises(RunConflictError, match="running already"):
        jobs.start(run)
    assert run.events.read_bytes() == before


def test_of_two_workers_started_at_once_one_is_refused(
    run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, stepped)
    with monkeypatch.context() as moment, pytest.raises(RunConflictError, match="another worker"):
        moment.setattr(jobs, "is_alive", lambda _: False)  # as it was just before the first one took the lock
        jobs.start(run)


def test_a_lock_that_another_process_holds_is_a_conflict(
    run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker("wait")
    monkeypatch.setattr(jobs, "_LOCK_PATIENCE_S", 0.1)
    jobs.start(run)
    with pytest.raises(RunConflictError, match="busy"), jobs.hold(run):
        raise AssertionError("the lock was given twice")


def test_looking_at_a_run_does_not_look_like_a_worker(run: RunFolder) -> None:
    with jobs.hold(run):
        assert jobs.is_alive(run)
        assert jobs.is_alive(run)
    assert not jobs.is_alive(run)


def test_a_worker_that_cannot_start_says_why_and_the_folder_stays(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("mute")
    with pytest.raises(EnvironmentProblem, match="did not start") as raised:
        jobs.start(run)
    assert "libfake.so.1" in raised.value.hint
    assert store.find("one") == run


def test_a_worker_that_says_nothing_does_not_go_on_unattended(
    run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            began.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(jobs, "FIRST_EVENT_S", 0.2)
    fake_worker("idle")
    with pytest.raises(EnvironmentProblem, match="made no progress for 0 s and was terminated"):
        jobs.start(run)
    assert [process.returncode for process in began] == [-signal.SIGKILL]
    assert not jobs.is_alive(run)


def test_slow_worker_start_is_waited_for(run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "FIRST_EVENT_S", 1.0)
    fake_worker("slow-finish")
    jobs.start(run)
    assert followed(run).status == "finished"


def test_cancel_is_an_answer_when_the_worker_listens(run: RunFolder, fake_worker: Behave) -> None:
    fake_worker("wait")
    jobs.start(run)
    until(run, stepped)
    said: list[str] = []
    assert jobs.cancel(run, said.append).status == "cancelled"
    assert said == ["cancelling one"]


def test_a_full_disk_does_not_keep_a_worker_alive(
    run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, action: control.Action) -> str:
        raise StorageError(f"cannot write {path}: No space left on device")

    fake_worker("wait")
    jobs.start(run)
    until(run, stepped)
    monkeypatch.setattr(control, "send", full)
    said: list[str] = []
    assert jobs.cancel(run, said.append).status == "cancelled"
    assert "No space left" in said[0] and "terminating" in said[1]


def test_a_worker_that_never_said_its_pid_has_no_processes() -> None:
    assert processes.members(0) == []


def test_cancel_escalates_to_a_kill_and_leaves_no_process(
    run: RunFolder, fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CANCEL_GRACE_S", 0.2)
    monkeypatch.setattr(jobs, "TERMINATE_GRACE_S", 5.0)
    fake_worker("deaf")
    jobs.start(run)
    state = until(run, lambda state: state.warnings[-1:] != () and state.warnings[-1].code == "deaf")
    monkeypatch.setattr(jobs, "TERMINATE_GRACE_S", 0.2)
    said: list[str] = []
    job = jobs.cancel(run, said.append)
    assert job.status == "cancelled"
    assert ["terminating" in said[1], "killing" in said[2]] == [True, True]
    assert not psutil.pid_exists(state.pid) or psutil.Process(state.pid).status() == psutil.STATUS_ZOMBIE
    last = list(EventReader(run.events).read())[-1]
    assert isinstance(last, events.Stopped) and last.reason == "cancel"


def test_reused_pid_is_not_signalled() -> None:
    assert processes.find(os.getpid(), 1.0) is None
    assert processes.find(os.getpid(), psutil.Process().create_time()) is not None


def messages(run: RunFolder) -> list[control.Control]:
    """Everything that was sent to the run's workers."""
    return control.ControlReader(run.control, 0).read()


def test_request_to_a_worker_that_replaces_itself_is_sent_once(run: RunFolder) -> None:
    """The new process reads it, starting where the previous one stopped reading."""
    writer = EventWriter(run.events)
    writer.write(events.Started(attempt=1, pid=7, process_start_s=1.0))
    writer.write(events.Replanned(changes={}, reason="memory"))
    request = Request(run, "stop_and_save")
    assert not request.heard(jobs.replay(run))
    (message,) = messages(run)
    writer.write(events.ControlAcknowledged(id=message.id, action=message.action))
    assert request.heard(jobs.replay(run))


def test_asking_from_the_screen_ends_with_the_answer_and_when_the_screen_does(
    run: RunFolder, fake_worker: Behave
) -> None:
    fake_worker("deaf")
    jobs.start(run)
    until(run, lambda state: state.warnings[-1:] != () and state.warnings[-1].code == "deaf")
    looks = iter([False, True])
    run_actions.ask(run, "save_now", print, lambda: next(looks))
    kill(run)
    fake_worker("wait")
    jobs.start(run)
    run_actions.ask(run, "stop_and_save", print, lambda: False)
    assert followed(run).status == "stopped"
    assert len(messages(run)) == 2
