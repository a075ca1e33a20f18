"""The chat process as its parent sees it: which model it may load, starting it, talking to it, and ending it.

The process is tied to its parent: it ends when its stdin ends, so nothing stays on the GPU when the parent dies.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from qlora_tui import paths
from qlora_tui.atomic import storage_errors
from qlora_tui.chat.protocol import Ask, Cancel, Failed, FromChild, encode, read_by_parent
from qlora_tui.errors import EnvironmentProblem, ExitCode, NotFoundError, QloraError, RunConflictError
from qlora_tui.regular_files import open_to_append
from qlora_tui.runs import checkpoints, gpus, jobs
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.store import RunFolder

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")

PROCESS = "qlora_tui.engine.chat"
"""Module of the process that answers."""

_CLOSE_PATIENCE_S = 5.0
_LOG_NAME = "stdio.log"


@dataclass(frozen=True, slots=True)
class Choice:
    """What to chat with."""

    run: RunFolder
    checkpoint: int | None = None
    """Step of the checkpoint to load instead of the finished adapter."""

    device: Device = "auto"
    allow_download: bool = False
    base_only: bool = False
    """The base model as it is, without an adapter, which need not be there."""


def check(choice: Choice) -> dict[str, str]:
    """Refuse what cannot be loaded, before a process is started; what the process needs in its environment.

    Raises NotFoundError for a checkpoint that is missing, RunConflictError for one that is not whole, for a run without
    an adapter, and when runs are training on every GPU.
    """
    if choice.checkpoint is not None:
        _check_checkpoint(choice.run, choice.checkpoint)
    elif not choice.base_only and not choice.run.adapter.is_dir():
        raise _no_adapter(choice.run)
    if choice.device == "auto" and choice.run.load_config().model.device != "cpu":
        return gpus.beside_training()
    return {}


def _check_checkpoint(run: RunFolder, step: int) -> None:
    found = {folder.step: folder for folder in checkpoints.all_checkpoints(run.checkpoints)}
    if step not in found:
        raise NotFoundError(f"run {run.name!r} has no checkpoint of step {step}", hint=_checkpoint_hint(run))
    problem = checkpoints.why_incomplete(found[step])
    if problem:
        raise RunConflictError(
            f"checkpoint {step} of run {run.name!r} is not whole: {problem}", hint=_checkpoint_hint(run)
        )


def _no_adapter(run: RunFolder) -> RunConflictError:
    job = jobs.look(run)
    at = f" at step {job.state.step_number}" if job.state.step_number else ""
    return RunConflictError(
        f"run {run.name!r} has no finished adapter yet: it is {job.status}{at}", hint=_checkpoint_hint(run)
    )


def _checkpoint_hint(run: RunFolder) -> str:
    whole = _whole_checkpoints(run)
    if whole:
        steps = ", ".join(str(folder.step) for folder in whole)
        return f"Chat with a checkpoint: --checkpoint {whole[0].step} (there are: {steps})."
    if jobs.is_alive(run):
        return f"Wait for it (`qlora-tui watch {run.name}`), or write a checkpoint now: `qlora-tui save {run.name}`."
    return f"It has no checkpoint either. Continue training with `qlora-tui resume {run.name}`."


def _whole_checkpoints(run: RunFolder) -> list[CheckpointFolder]:
    found = checkpoints.all_checkpoints(run.checkpoints)
    return [folder for folder in found if checkpoints.why_incomplete(folder, by_content=False) is None]


class ChatClient:
    """A running chat process. Use it as a context manager: leaving the block ends the process."""

    def __init__(self, choice: Choice) -> None:
        """Start the process. Raises what `check` raises, and StorageError when its log cannot be written."""
        environment = paths.child_environment(**check(choice))
        self.choice = choice
        self.log = choice.run.chats / _LOG_NAME
        command = [sys.executable, "-m", PROCESS, str(choice.run.path), "--device", choice.device]
        command += ["--checkpoint", str(choice.checkpoint)] if choice.checkpoint is not None else []
        command += ["--base-only"] if choice.base_only else []
        command += ["--allow-download"] if choice.allow_download else []
        with storage_errors(self.log):
            choice.run.chats.mkdir(mode=0o700, exist_ok=True)
            with open_to_append(self.log) as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    # A session of its own, so that Ctrl-C in the terminal reaches the parent alone.
                    start_new_session=True,
                    cwd=choice.run.path,
                    env=environment,
                )

    @property
    def pid(self) -> int:
        """Process id of the chat process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, ask: Ask) -> None:
        """Send a question. Raises EnvironmentProblem when the process is gone."""
        self._send(encode(ask))

    def cancel(self, ask_id: int) -> None:
        """Ask for the end of an answer; it comes as Done. Safe in a signal handler once `ask` has returned."""
        self._send(encode(Cancel(id=ask_id)))

    def receive(self) -> FromChild:
        """Wait for the next message.

        Raises the error that ended the process: what it said itself, else EnvironmentProblem.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        message = read_by_parent(line)
        if isinstance(message, Failed) and message.fatal:
            self._process.wait()
            raise as_error(message)
        return message

    def close(self) -> None:
        """End the process and wait until it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            while line:
                line = line[os.write(self._process.stdin.fileno(), line) :]
        except BrokenPipeError as error:
            raise self._ended() from error

    def _ended(self) -> QloraError:
        code = self._process.wait()
        reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        hint = "Memory may have run out. " if code == -9 else ""
        return EnvironmentProblem(f"the chat process ended ({reason})", hint=f"{hint}Its log: {self.log}")


def as_error(message: Failed) -> QloraError:
    """The error that the process reported, with its exit code."""
    error = QloraError(message.message, hint=message.hint)
    error.exit_code = ExitCode(message.exit_code)
    return error
