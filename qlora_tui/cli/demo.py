"""`demo`: the whole loop on the bundled model, and what the training changed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from qlora_tui.cli.options import Json
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.runs.store import RunFolder

_PRESET = "starter"
_MEASURE = "qlora_tui.engine.exact_match"


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(as_json: Json = False) -> None:
    """Fine-tune the bundled model in 4-bit and show its answers before and after. Needs no GPU and no network."""
    from qlora_tui.cli import foreground
    from qlora_tui.cli.output import write_json
    from qlora_tui.config.overrides import resolve
    from qlora_tui.runs import jobs
    from qlora_tui.runs.creation import create

    run = create(resolve(_PRESET), None, _PRESET)
    narrate(f"run {run.name} in {run.path}")
    follower = foreground.run_to_end(run, lambda: jobs.start(run), as_json=False)
    if follower.status != "finished":
        return
    narrate("asking the held-out questions, without the adapter and with it")
    samples: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for message in measure(run):
        if message["kind"] == "sample":
            samples.append(message)
        elif message["kind"] == "progress" and message["done"] == message["total"]:
            narrate(f"{message['side']}: {message['done']} questions answered")
        elif message["kind"] == "result":
            result = message
    if as_json:
        write_json({"run": run.name, "samples": samples, "result": result})
    else:
        _show(run, samples, result)


def measure(run: "RunFolder") -> Iterator[dict[str, Any]]:
    """What the exact-match child says, message by message. Raises the error that it reports."""
    from qlora_tui.errors import ExitCode, QloraError
    from qlora_tui.starter import HELDOUT_DATA

    command = [sys.executable, "-m", _MEASURE, str(run.path), str(HELDOUT_DATA)]
    with run.stdio.open("ab") as noise, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise) as child:
        for line in child.stdout or ():
            message = json.loads(line)
            if message["kind"] == "error":
                error = QloraError(message["message"], hint=message["hint"])
                error.exit_code = ExitCode(message["exit_code"])
                raise error
            yield message
    if child.returncode:
        raise QloraError(f"the measurement ended with code {child.returncode}", hint=f"Its output is in {run.stdio}.")


def _show(run: "RunFolder", samples: list[dict[str, Any]], result: dict[str, Any]) -> None:
    from qlora_tui.runs.narration import short
    from qlora_tui.terminal import printable

    for sample in samples:
        typer.echo(printable(short(sample["question"]), one_line=True))
        for label, key in (("before", "base"), ("after", "adapter"), ("expected", "expected")):
            typer.echo(f"  {label:8}  {printable(short(sample[key]), one_line=True)}")
    typer.echo(
        f"exact match on {result['questions']} held-out questions: "
        f"{result['base_exact_match']:.1%} before, {result['adapter_exact_match']:.1%} after"
    )
    narrate(f"talk to it: qlora-tui chat {run.name}")
    narrate(f"look at it again: qlora-tui runs show {run.name}")
    narrate("train on your own data: qlora-tui train --help")
