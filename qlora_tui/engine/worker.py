"""The process that trains one run: `python -m qlora_tui.engine.worker RUN_FOLDER`.

Takes the run's lock and writes an event before it imports torch. Every way of ending becomes an event.
"""

import argparse
import errno
import os
import re
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil

from qlora_tui import __version__, atomic, hardware, limits
from qlora_tui.engine import environment, stdio
from qlora_tui.engine.session import Session
from qlora_tui.errors import ExitCode, QloraError, StorageError
from qlora_tui.memory import context
from qlora_tui.redaction import traceback_of
from qlora_tui.runs import checkpoints, control, damage, events, jobs, log_length
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.event_log import last_started
from qlora_tui.runs.extension import changes, current_config
from qlora_tui.runs.fingerprint import check_base, check_plan
from qlora_tui.runs.store import RunFolder
from qlora_tui.runs.versions import LIBRARIES, library_versions

_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENXIO,
    errno.ENODEV, errno.ESTALE, errno.EREMOTEIO, errno.ENOTCONN,
)  # fmt: skip
_FULL_BYTES = 1 << 20
"""A disk with less than this free has failed a write for want of space."""


def main() -> int:
    stdio.make_lossy()
    options = _parse()
    environment.prepare(allow_download=options.allow_download)
    try:
        with jobs.hold(options.run):
            if options.control_offset is None:
                options.control_offset = control.end(options.run.control)
            return _attempt(options.run, options)
    except QloraError as error:
        print(f"error: {error.message}. {error.hint}", file=sys.stderr)
        return error.exit_code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.worker")
    parser.add_argument("run", type=lambda text: RunFolder(Path(text)))
    parser.add_argument("--replan-on-oom", action="store_true")
    parser.add_argument("--accept-changed-data", action="store_true")
    parser.add_argument("--allow-download", action="store_true")
    parser.add_argument(
        "--control-offset", type=int, help="Offset of the first control message for this worker, in bytes."
    )
    parser.add_argument("--set", dest="settings", action="append", default=[])
    return parser.parse_args()


def _attempt(run: RunFolder, options: argparse.Namespace) -> int:
    promised, _ = checkpoints.newest_complete(run.checkpoints, by_content=False)
    session = Session(run, None, options.control_offset)
    limits.last_words = partial(_fail, session)
    try:
        checkpoint = _begin(session, promised)
        for sentence in damage.found(run, session.state._replace(last_line=session.lines_before)):
            session.warn("damage", sentence)
        log_length.store(run, session.lines_before)  # lines that were lost until now have been reported
        _extend(session, options.settings)
        config = current_config(run, session.state)
        resuming = checkpoint is not None or run.pissa_initial.exists()
        if restored := check_plan(run, resuming=resuming, accept=options.accept_changed_data):
            session.warn("damage", restored)
        check_base(run, config, resuming=resuming)
        environment.choose_gpu(config.model.device)
        session.stage("importing", "PyTorch and the training libraries")
        environment.import_libraries(*LIBRARIES)
        from qlora_tui.engine import train

        with suppress(StorageError):  # only later estimates want it
            context.remember_imports(hardware.resident_bytes())

        replan = train.run(
            session,
            config,
            checkpoint,
            allow_download=options.allow_download,
            accept_changed_data=options.accept_changed_data,
            replan_on_oom=options.replan_on_oom,
        )
    except Exception as error:  # the worker's edge: whatever it is becomes an event
        return _fail(session, _explained(error, run))
    if replan is not None:
        if session.stop_reason is None:
            _replan(session, replan)
        session.emit_last(session.stopped(session.stop_reason))
    return ExitCode.OK


def _replan(session: Session, replan: events.Replanned) -> NoReturn:
    """Restart with less memory in a new process, which also handles the messages not read by this one."""
    again = [*sys.argv[1:], f"--control-offset={session.control_offset}"]  # the last one counts
    session.emit(replan)
    os.execv(sys.executable, [sys.executable, "-m", "qlora_tui.engine.worker", *again])


def _begin(session: Session, promised: CheckpointFolder | None) -> CheckpointFolder | None:
    """Log the start of the attempt, then read the run so far and the checkpoint from which it continues.

    Both may take minutes, during which the run is shown as starting. `promised` is the newest checkpoint that looks
    complete; the one that is complete is returned.
    """
    before = last_started(session.run.events)
    attempt = before.attempt + 1 if before else 1
    if before is None:
        session.emit(events.Created(name=session.run.name, program_version=__version__))
    _announce(session, attempt, promised)
    session.listen()
    if before is not None:
        session.stage("starting", "reading the events of the run")
    session.recall()
    if promised is not None:
        session.stage("verifying", promised.path.name)
    checkpoint, skipped = checkpoints.newest_complete(session.run.checkpoints)
    if checkpoint != promised:
        _announce(session, attempt, checkpoint)
    for sentence in checkpoints.put_aside(skipped):
        session.warn("checkpoint_skipped", sentence)
    return checkpoint


def _announce(session: Session, attempt: int, checkpoint: CheckpointFolder | None) -> None:
    session.emit(
        events.Started(
            attempt=attempt,
            pid=os.getpid(),
            process_start_s=psutil.Process().create_time(),
            resumed_from_step=checkpoint.step if checkpoint else None,
            versions=library_versions(),
        )
    )


def _extend(session: Session, settings: list[str]) -> None:
    """Log the new length of the run. Does nothing if it already has this length, as after a replan."""
    if changed := changes(session.run, session.state, settings):
        session.emit(events.Extended(changes=changed))


def _explained(error: Exception, run: RunFolder) -> QloraError:
    """The error to show: our own as it is, a failed write as what the disk said, anything else as a fault of ours."""
    if isinstance(error, QloraError):
        return error
    print(traceback_of(error), file=sys.stderr, flush=True)
    failed_write = error if isinstance(error, OSError) else _failed_write(str(error), run)
    if failed_write is not None and failed_write.errno in _DISK_ERRORS:
        return atomic.storage_error(Path(failed_write.filename or run.path), failed_write)
    hint = f"The traceback is in {run.stdio}. `qlora-tui resume {run.name}` continues from the last checkpoint, if any."
    return QloraError(f"internal error: {type(error).__name__}: {error}", hint=hint)


def _failed_write(text: str, run: RunFolder) -> OSError | None:
    """The OSError behind an error of safetensors or PyTorch, which hide it in a text or lose it."""
    if number := re.search(r"(?:os error|[Ee]rrno) (\d+)", text):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if not any(words in text for words in ("PytorchStreamWriter", "inline_container", "iostream error")):
        return None
    if hardware.free_disk_bytes(run.path) < _FULL_BYTES:
        return OSError(errno.ENOSPC, text.splitlines()[0])
    return _probed(run) or OSError(errno.EIO, text.splitlines()[0])


def _probed(run: RunFolder) -> OSError | None:
    """Return the error of a test write to the disk, such as an exceeded quota; None if it succeeds."""
    try:
        with tempfile.NamedTemporaryFile(dir=run.path, prefix=".probe-") as file:
            file.write(bytes(_FULL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _fail(session: Session, error: QloraError) -> int:
    """Say why. A half-written checkpoint goes first: on a full disk it makes the room for the last event."""
    with suppress(OSError):
        checkpoints.discard_unwritten(session.run.checkpoints)
    stage = session.state.stage.stage if session.state.stage else "starting"
    session.emit_last(
        events.Failed(
            message=error.message,
            hint=error.hint,
            where=stage,
            exit_code=error.exit_code,
            peak_bytes=getattr(error, "peak_bytes", 0),
        )
    )
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
