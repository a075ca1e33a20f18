"""The evaluation process as its parent sees it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from qlora_tui import paths
from qlora_tui.atomic import storage_errors
from qlora_tui.errors import EnvironmentProblem, ExitCode, QloraError
from qlora_tui.evaluation.tasks import Task
from qlora_tui.regular_files import open_to_append
from qlora_tui.runs import gpus
from qlora_tui.runs.store import RunFolder

PROCESS = "qlora_tui.engine.evaluation"
"""Module of the process that measures a run."""

STUDY = "qlora_tui.engine.evaluation.quantization_study"
"""Module of the process that compares ways to store a model's weights."""


def measure(run: RunFolder, task: Task, *, allow_download: bool = False) -> Iterator[dict[str, Any]]:
    """Start the process and yield what it says; the last message has the kind "result".

    Raises the error that it reports, EnvironmentProblem when it ends without one, or RunConflictError when its device
    is "auto" and runs are training on every GPU. It has a session of its own, so Ctrl-C reaches the parent alone, which
    ends it.
    """
    is_choosing = task.device == "auto" and run.load_config().model.device != "cpu"
    environment = paths.child_environment(**(gpus.beside_training() if is_choosing else {}))
    log = run.path / "eval" / "stdio.log"
    command = [sys.executable, "-m", PROCESS, str(run.path), task.model_dump_json()]
    command += ["--allow-download"] if allow_download else []
    with storage_errors(log):
        log.parent.mkdir(mode=0o700, exist_ok=True)
        noise = open_to_append(log)
    with noise:
        yield from _messages(command, noise, f"Its output is in {log}.", environment)


def study_quantization(model: str, text: Path | None, *, allow_download: bool = False) -> Iterator[dict[str, Any]]:
    """The same for a model instead of a run: what each way to store its weights costs."""
    command = [sys.executable, "-m", STUDY, model]
    command += ["--text", str(text)] if text is not None else []
    command += ["--allow-download"] if allow_download else []
    with tempfile.TemporaryFile() as noise:
        yield from _messages(command, noise, "Is there enough memory to load it in float32?")


def _messages(
    command: list[str], noise: IO[bytes], hint: str, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=noise, start_new_session=True, env=environment
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                message = json.loads(line)
                if message["kind"] == "error":
                    raise _as_error(message)
                yield message
        except BaseException:  # also Ctrl-C, SIGTERM, and a reader that wants no more
            child.terminate()
            raise
    if child.returncode:
        raise EnvironmentProblem(f"the evaluation process ended with code {child.returncode}", hint=hint)


def _as_error(message: dict[str, Any]) -> QloraError:
    error = QloraError(message["message"], hint=message["hint"])
    error.exit_code = ExitCode(message["exit_code"])
    return error
