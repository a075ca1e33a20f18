"""The process that trains one run: `python -m qlora_tui.engine.worker RUN_FOLDER`.

Takes the run's lock and says so before it imports torch. Every way in which it can end becomes an event.
"""

import argparse
import os
import shutil
import sys
import traceback
from pathlib import Path

import psutil

from qlora_tui import __version__
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import environment
from qlora_tui.engine.session import Session
from qlora_tui.errors import ExitCode, QloraError, StorageError
from qlora_tui.runs import checkpoints, events, jobs
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.store import RunFolder
from qlora_tui.runs.versions import library_versions


def main() -> int:
    options = _parse()
    environment.prepare(allow_download=options.allow_download)
    try:
        with jobs.hold(options.run):
            return _attempt(options.run, options)
    except QloraError as error:
        print(f"{error.message}. {error.hint}", file=sys.stderr)
        return error.exit_code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.worker")
    parser.add_argument("run", type=lambda text: RunFolder(Path(text)))
    parser.add_argument("--replan-on-oom", action="store_true")
    parser.add_argument("--accept-changed-data", action="store_true")
    parser.add_argument("--allow-download", action="store_true")
    return parser.parse_args()


def _attempt(run: RunFolder, options: argparse.Namespace) -> int:
    session = Session(run, jobs.replay(run))
    checkpoint, skipped = checkpoints.newest_complete(run.checkpoints)
    _announce(session, checkpoint)
    session.listen()
    for folder, problem in skipped:
        session.warn("checkpoint_skipped", f"{folder.path.name} is not resumed from: {problem}")
        shutil.rmtree(folder.path, ignore_errors=True)
    try:
        config = current_config(session)
        session.stage("importing", "PyTorch and the training libraries")
        from qlora_tui.engine import train

        replan = train.run(
            session,
            config,
            checkpoint,
            allow_download=options.allow_download,
            accept_changed_data=options.accept_changed_data,
            replan_on_oom=options.replan_on_oom,
        )
    except QloraError as error:
        return _fail(session, error)
    except OSError as error:
        return _fail(
            session, StorageError(f"the file system failed: {error}", hint="Free some disk space, then resume.")
        )
    except Exception as error:  # the worker's edge: anything else is a fault of ours and becomes an event
        traceback.print_exc()
        hint = f"The traceback is in {run.stdio}. `qlora-tui resume {run.name}` continues from the last checkpoint."
        return _fail(session, QloraError(f"internal error: {type(error).__name__}: {error}", hint=hint))
    if replan is not None:
        session.emit(replan)
        os.execv(sys.executable, [sys.executable, "-m", "qlora_tui.engine.worker", *sys.argv[1:]])
    return ExitCode.OK


def _announce(session: Session, checkpoint: CheckpointFolder | None) -> None:
    if not session.state.attempt:
        session.emit(events.Created(name=session.run.name, program_version=__version__))
    session.emit(
        events.Started(
            attempt=session.state.attempt + 1,
            pid=os.getpid(),
            process_start_s=psutil.Process().create_time(),
            resumed_from_step=checkpoint.step if checkpoint else None,
            versions=library_versions(),
        )
    )


def current_config(session: Session) -> RunConfig:
    """The frozen configuration with what replanning has changed since."""
    changes = session.state.replanned or {}
    return edited(session.run.load_config(), [f"{key}={value}" for key, value in changes.items()])


def _fail(session: Session, error: QloraError) -> int:
    """Say why. A half-written checkpoint goes first: on a full disk it makes the room for the last event."""
    for folder in checkpoints.all_checkpoints(session.run.checkpoints):
        if not (folder.path / checkpoints.MARKER).exists():
            shutil.rmtree(folder.path, ignore_errors=True)
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
