"""A worker's ears and last words: signals, control messages and a full disk, whatever its main thread is doing."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.engine import worker
from qlora_tui.engine.session import Session
from qlora_tui.errors import ExitCode, StorageError
from qlora_tui.runs import control, events, jobs, store
from qlora_tui.runs.control import Control, ControlReader
from qlora_tui.runs.event_log import EventReader, EventWriter
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

IN_ONE_C_CALL = """
import hashlib, os, sys
from pathlib import Path
from qlora_tui.engine.session import Session
from qlora_tui.runs import events, jobs
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

run = RunFolder(Path(sys.argv[1]))
with jobs.hold(run):
    session = Session(run, RunState())
    session.emit(events.Started(attempt=1, pid=os.getpid(), process_start_s=1.0))
    session.listen()
    session.stage("loading")
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
"""A worker whose main thread comes back from a C call only after minutes."""


@pytest.fixture
def run() -> RunFolder:
    return store.create("one", RunConfig(), {})


@pytest.fixture
def busy(run: RunFolder) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker inside its C call."""
    command = [sys.executable, "-c", IN_ONE_C_CALL, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def last_event(run: RunFolder) -> AnyEvent:
    return list(EventReader(run.events).read())[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_loading_stops_at_once(
    run: RunFolder, busy: "subprocess.Popen[bytes]", number: signal.Signals
) -> None:
    busy.send_signal(number)
    busy.send_signal(number)
    assert busy.wait(20) == ExitCode.OK
    stopped = last_event(run)
    assert isinstance(stopped, events.Stopped) and stopped.reason == "signal"
    assert not run.reserve.exists()


def test_a_cancel_while_loading_is_obeyed_among_garbage(run: RunFolder, busy: "subprocess.Popen[bytes]") -> None:
    with run.control.open("ab") as file:
        file.write(b"\xff\xfe\x00\n" + b"[" * 100_000 + b'\n{"id": 1, "action": "cancel"}\n{"id": "a"}\n[]\n')
    control.send(run.control, "cancel")
    assert busy.wait(20) == ExitCode.CANCELLED
    assert jobs.look(run).status == "cancelled"


def test_a_worker_whose_run_is_deleted_ends_and_does_not_bring_it_back(
    run: RunFolder, busy: "subprocess.Popen[bytes]"
) -> None:
    shutil.rmtree(run.path)
    assert busy.wait(20) == ExitCode.STORAGE
    assert not run.path.exists()


def test_a_worker_whose_run_is_renamed_ends_and_says_so_there(run: RunFolder, busy: "subprocess.Popen[bytes]") -> None:
    run.path.rename(run.path.with_name("two"))
    assert busy.wait(20) == ExitCode.STORAGE
    moved = jobs.look(store.find("two"))
    assert moved.status == "failed"
    assert moved.state.failed is not None and "moved" in moved.state.failed.message
    assert not run.path.exists()


@pytest.fixture
def full_disk(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose disk has no more room than what was reserved."""
    session = Session(run, RunState())
    write = EventWriter.write

    def with_room(writer: EventWriter, event: AnyEvent) -> AnyEvent:
        if run.reserve.exists():
            raise StorageError(f"cannot write {run.events}: No space left on device")
        return write(writer, event)

    monkeypatch.setattr(EventWriter, "write", with_room)
    return session


def test_on_a_full_disk_there_is_room_for_the_last_event(run: RunFolder, full_disk: Session) -> None:
    assert run.reserve.stat().st_blocks * 512 >= 4096, "a sparse file reserves nothing"
    with pytest.raises(StorageError):
        full_disk.stage("training")
    full_disk.emit_last(events.Failed(message="disk full", exit_code=ExitCode.STORAGE))
    assert last_event(run).kind == "failed"


def test_on_a_full_disk_a_message_that_cannot_be_acknowledged_is_obeyed(full_disk: Session) -> None:
    full_disk.phase = "training"
    with pytest.raises(StorageError):
        full_disk._obey(Control("1", "save_now"))
    with pytest.raises(StorageError):
        full_disk._obey(Control("2", "stop_and_save"))
    assert full_disk.save_now.is_set()
    assert full_disk.stop_reason == "stop_and_save"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EDQUOT])
def test_reason_is_kept_when_the_log_cannot_be_written(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """As on a read-only disk: the worker ends with a reason, which is shown for the run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = Session(run, RunState())
    session.emit(events.Started(attempt=1, pid=1, process_start_s=1.0))

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        broken.setattr(os, "ftruncate", fail)
        broken.setattr(Path, "unlink", fail)
        code = worker._fail(session, worker._explained(OSError(number, os.strerror(number)), run))
    assert code == ExitCode.STORAGE
    job = jobs.look(run)
    assert job.status == "failed" and job.state.failed is not None
    assert os.strerror(number) in job.state.failed.message and job.state.failed.exit_code == ExitCode.STORAGE
    follower = Follower(run)
    follower.catch_up()
    assert follower.status == "failed"
    session.emit(events.Started(attempt=2, pid=1, process_start_s=1.0))
    assert jobs.look(run).status == "crashed", "the reason of an earlier attempt is not reported for the next"


def test_output_that_cannot_be_written_is_dropped() -> None:
    """The output file of a worker is on the same disk as its log: on a read-only disk neither can be written."""
    code = (
        "from qlora_tui.engine import stdio; stdio.make_lossy(); import sys, warnings;"
        "print('x' * 100_000, flush=True); print('y', file=sys.stderr, flush=True); warnings.warn('z')"
    )
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full).returncode == 0


def test_a_message_after_the_control_file_was_emptied_is_read(run: RunFolder) -> None:
    for _ in range(3):
        control.send(run.control, "save_now")
    reader = ControlReader(run.control, control.end(run.control))
    os.truncate(run.control, 0)
    assert reader.read() == []
    control.send(run.control, "cancel")
    assert [message.action for message in reader.read()] == ["cancel"]


LONG_LOG = """
import sys, time
from pathlib import Path
from qlora_tui.engine import session as sessions
from qlora_tui.engine.session import Session
from qlora_tui.runs import events, jobs
from qlora_tui.runs.store import RunFolder

class SlowReader(sessions.EventReader):
    def batches(self):
        print("reading", flush=True)
        sys.stdin.readline()
        yield from super().batches()

sessions.EventReader = SlowReader
run = RunFolder(Path(sys.argv[1]))
with jobs.hold(run):
    session = Session(run, None, int(sys.argv[2]))
    session.listen()
    session.recall()
    print("read", flush=True)
    time.sleep(60)
"""
"""A worker that has the lock and reads a long log."""


@pytest.mark.parametrize("action", ["stop_and_save", "cancel"])
def test_message_sent_while_a_worker_is_starting_is_obeyed(run: RunFolder, action: control.Action) -> None:
    writer = EventWriter(run.events)
    writer.write(events.Started(attempt=1, pid=1, process_start_s=1.0))
    writer.write(events.Step(step=7, epoch=0, loss=1, learning_rate=1, grad_norm=1, tokens=1, tokens_per_s=1))
    writer.close()
    control.send(run.control, "cancel")  # meant for an earlier worker
    command = [sys.executable, "-c", LONG_LOG, str(run.path), str(control.end(run.control))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == b"reading\n"
            message = jobs.ask(run, action)
            process.stdin.write(b"go on\n" * 2)
            process.stdin.flush()
            assert process.wait(20) == (ExitCode.OK if action == "stop_and_save" else ExitCode.CANCELLED)
        finally:
            process.kill()
    stopped = last_event(run)
    assert isinstance(stopped, events.Stopped)
    assert (stopped.reason, stopped.step) == (action, 7)
    assert jobs.replay(run).acknowledged == (message,)


def test_worker_that_replans_takes_over_where_the_messages_were_read(run: RunFolder) -> None:
    control.send(run.control, "cancel")
    session = Session(run, RunState())
    sent = control.send(run.control, "stop_and_save")
    again = Session(run, None, session.control_offset)
    assert [message.id for message in again._control.read()] == [sent]


def test_a_warning_is_said_once(run: RunFolder) -> None:
    session = Session(run, RunState())
    for step in (3, 4):
        session.warn("non_finite_loss", f"at step {step}", once_by_code=True)
        session.warn("settings", f"{step} has no effect")
        session.warn("settings", f"{step} has no effect")
    said = [warning.message for warning in session.state.warnings]
    assert said == ["at step 3", "3 has no effect", "4 has no effect"]
