"""A worker without torch that holds the real lock, writes real events, handles control messages, and does not train.

What it does is decided by FAKE_WORKER: finish, fail, wait (until it is told something), deaf (obeys nothing but a
kill), mute (ends without a word), idle (neither says nor does anything). After "slow-" it works for two seconds before
it says something. Its other flags come back as a warning with the code "flags".
"""

import os
import signal
import sys
import time
from pathlib import Path

import psutil

from qlora_tui import atomic
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.runs import events, jobs
from qlora_tui.runs.checkpoints import newest_complete, seal
from qlora_tui.runs.control import ControlReader
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.heartbeat import Heart
from qlora_tui.runs.store import RunFolder

TOTAL_STEPS = 4
_POLL_S = 0.01
"""Between two looks at the control file, which, as with the real worker, says nothing when it grows."""


def main() -> int:
    run = RunFolder(Path(sys.argv[1]))
    jobs._LOCK_PATIENCE_S = 0.5
    os.umask(0o077)
    wanted = os.environ.get("FAKE_WORKER", "finish")
    behaviour = wanted.removeprefix("slow-")
    if behaviour == "mute":
        print("no such library: libfake.so.1", file=sys.stderr)
        return 1
    if behaviour == "idle":
        signal.pause()
    while wanted != behaviour and time.process_time() < 2.0:
        pass
    try:
        with jobs.hold(run):
            return work(run, behaviour)
    except QloraError as error:
        print(f"error: {error.message}. {error.hint}", file=sys.stderr)
        return error.exit_code


def work(run: RunFolder, behaviour: str) -> int:
    offset, *flags = sys.argv[2:]
    control = ControlReader(run.control, int(offset.removeprefix("--control-offset=")))
    writer = EventWriter(run.events)
    heart = Heart(run)
    before = jobs.replay(run)
    checkpoint, _ = newest_complete(run.checkpoints)
    step = checkpoint.step if checkpoint else 0
    if not before.attempt:
        writer.write(events.Created(name=run.name, program_version="0"))
    writer.write(
        events.Started(
            attempt=before.attempt + 1,
            pid=os.getpid(),
            process_start_s=psutil.Process().create_time(),
            resumed_from_step=step or None,
        )
    )
    writer.write(events.Warned(code="flags", message=" ".join(flags)))
    writer.write(events.TrainingPlanned(total_steps=TOTAL_STEPS, steps_per_epoch=None, effective_batch_rows=1))
    writer.write(events.Stage(stage="training", done=step, total=TOTAL_STEPS, unit="steps"))
    if behaviour == "fail":
        writer.write(events.Failed(message="row 7 of evil\x1b[31m.jsonl", hint="Fix it.", exit_code=ExitCode.DATA))
        return ExitCode.DATA
    if behaviour == "finish":
        while step < TOTAL_STEPS:
            step = take_step(writer, step)
        save(run, writer, step)
        writer.write(events.Finished(step=step, train_seconds=1.0, metrics={"train_loss": 0.5}))
        return ExitCode.OK
    step = take_step(writer, step)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        writer.write(events.Warned(code="deaf", message="hears nothing from here on"))
        while True:
            signal.pause()  # nothing but a kill ends this
    return wait(run, writer, control, step, heart)


def take_step(writer: EventWriter, step: int) -> int:
    writer.write(
        events.Step(step=step + 1, epoch=0.0, loss=1 / (step + 1), learning_rate=1e-3, grad_norm=1.0, tokens=8,
                    tokens_per_s=8.0)
    )  # fmt: skip
    return step + 1


def save(run: RunFolder, writer: EventWriter, step: int) -> None:
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "trainer_state.json", {"global_step": step})
    writer.write(events.Checkpoint(step=step, folder=folder.name, size_bytes=seal(folder), seconds=0.0))


def wait(run: RunFolder, writer: EventWriter, control: ControlReader, step: int, heart: Heart) -> int:
    """Do as told until told to stop."""
    while True:
        for message in control.read():
            writer.write(events.ControlAcknowledged(id=message.id, action=message.action))
            if message.action != "cancel":
                save(run, writer, step)
            if message.action == "save_now":
                continue
            saved_step = None if message.action == "cancel" else step
            writer.write(events.Stopped(reason=message.action, step=step, checkpoint_step=saved_step))
            return ExitCode.CANCELLED if message.action == "cancel" else ExitCode.OK
        heart.beat(0)
        time.sleep(_POLL_S)  # another process writes the control file: there is nothing here to wait on


if __name__ == "__main__":
    sys.exit(main())
