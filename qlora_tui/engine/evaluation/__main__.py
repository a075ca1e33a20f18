"""The evaluation process. It prints JSON lines (stages, progress, the result) and keeps them in RUN/eval/events.jsonl.

It continues when its output is no longer read; the result is written to RUN/eval/NAME.json.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from qlora_tui import __version__, atomic, limits
from qlora_tui.data.downloads import Consent
from qlora_tui.engine import environment
from qlora_tui.engine.evaluation import partial
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.evaluation import tasks
from qlora_tui.evaluation.questions import questions_of
from qlora_tui.evaluation.results import write
from qlora_tui.evaluation.text_scores import left_out
from qlora_tui.redaction import redacted, traceback_of
from qlora_tui.regular_files import open_to_append
from qlora_tui.runs.fingerprint import pinned, pinned_data
from qlora_tui.runs.store import RunFolder

_TELL_EVERY_S = 0.5


class Teller:
    """Says what happens to the parent and to the run's folder."""

    def __init__(self, run: RunFolder, name: str) -> None:
        self._path = run.path / "eval" / "events.jsonl"
        self._name = name
        self._told_s = 0.0
        self._parent = os.dup(1)

    def say(self, kind: str, **facts: Any) -> None:
        """One line to both."""
        message = {"kind": kind, "name": self._name, "time_s": round(time.time(), 3), **facts}
        line = json.dumps(message, ensure_ascii=False).encode() + b"\n"
        with open_to_append(self._path) as log:
            log.write(line)
        with contextlib.suppress(OSError):
            os.write(self._parent, line)

    def stage(self, text: str) -> None:
        """What is being done now."""
        self.say("stage", text=text)

    def progress(self, side: str, done: int, total: int) -> None:
        """How far it is, at most twice a second."""
        now_s = time.monotonic()
        if done == total or now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            self.say("progress", side=side, done=done, total=total)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.evaluation")
    parser.add_argument("run", type=lambda text: RunFolder(Path(text)))
    parser.add_argument("task", type=tasks.parse)
    parser.add_argument("--allow-download", action="store_true")
    options = parser.parse_args()
    folder = options.run.path / "eval"
    with atomic.storage_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    teller = Teller(options.run, options.task.name)

    def report(error: QloraError) -> None:
        teller.say("error", message=error.message, hint=error.hint, exit_code=int(error.exit_code))

    limits.last_words = report
    os.dup2(2, 1)  # what libraries print must not come between the messages
    environment.prepare(allow_download=options.allow_download)
    environment.choose_gpu(options.task.device)
    try:
        result = run_task(options.run, options.task, teller, lambda download: options.allow_download)
        path = write(options.run, options.task.name, {"program_version": __version__, **result})
        partial.remove(options.run, options.task.name)
        teller.say("result", file=str(path), **{key: value for key, value in result.items() if key != "per_row"})
    except QloraError as error:
        report(error)
        return error.exit_code
    except Exception as error:  # the process's edge: a fault of ours becomes a message
        print(traceback_of(error), file=sys.stderr, flush=True)
        message = redacted(f"internal error: {type(error).__name__}: {error}")
        teller.say("error", message=message, hint="The traceback is in eval/stdio.log.", exit_code=1)
        return ExitCode.INTERNAL
    return 0


def run_task(run: RunFolder, task: tasks.Task, teller: Teller, consent: Consent) -> dict[str, Any]:
    """The result of a task, with what it was asked."""
    began_s = time.monotonic()
    teller.stage("importing PyTorch")
    from qlora_tui.engine.evaluation import answers, harness, loss, mmlu, pair

    # What can be wrong in a file is said before a model is loaded.
    questions = mmlu.read(Path(task.file), task.limit) if isinstance(task, tasks.MmluTask) else []
    expected = answers.read(task.source, task.limit, consent) if isinstance(task, tasks.AnswersTask) else []
    asked = questions_of(task.source, task.limit, consent) if isinstance(task, tasks.GenerateTask) else []
    if isinstance(task, tasks.GenerateTask):
        answers.check_kept(run, task.sides, asked, task)
    if isinstance(task, tasks.HarnessTask):
        harness.check()
    if isinstance(task, tasks.AnswersTask) and left_out():
        teller.stage(f"without {' and '.join(left_out())}, which need: pip install 'qlora-tui[eval]'")
    loaded = pair.load(run, task, teller.stage)
    teller.stage("measuring")
    match task:
        case tasks.LossTask():
            config = pinned_data(run, pinned(run, run.load_config()))
            rows = loss.rows_of(config, loaded.tokenizer, task, consent)
            found = loss.measure(loaded, rows, task, teller.progress, partial.on_disk(run, task, rows))
        case tasks.MmluTask():
            found = mmlu.measure(loaded, questions, task, teller.progress, partial.on_disk(run, task, questions))
        case tasks.AnswersTask():
            found = answers.measure(loaded, expected, task, teller.progress, partial.on_disk(run, task, expected))
        case tasks.GenerateTask():
            found = answers.generate_all(run, loaded, asked, task, teller.progress)
        case tasks.HarnessTask():
            found = harness.measure(loaded, task, teller.stage)
    return {"task": task.model_dump(), "seconds": round(time.monotonic() - began_s, 3), **found}


if __name__ == "__main__":
    sys.exit(main())
