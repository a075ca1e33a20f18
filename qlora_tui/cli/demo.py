"""`demo`: the whole loop on the bundled model, and what the training changed."""

from typing import TYPE_CHECKING, Any

import typer

from qlora_tui.cli.options import Json
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.runs.store import RunFolder

_MAX_TOKENS = 32
_BATCH_ROWS = 32
_SAMPLES = 6


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(as_json: Json = False) -> None:
    """Fine-tune the bundled starter model on this machine.

    Trains in 4-bit and shows answers before and after. Needs no GPU and no network.
    """
    from qlora_tui.cli import foreground
    from qlora_tui.cli.output import write_json
    from qlora_tui.runs import jobs
    from qlora_tui.runs.creation import create
    from qlora_tui.starter import demo as demonstration

    run = create(demonstration.config(), None, demonstration.PRESET)
    narrate(f"run {run.name} in {run.path}")
    follower = foreground.run_to_end(run, lambda: jobs.start(run), as_json=False)
    if follower.status != "finished":
        return
    narrate("asking the held-out questions, without the adapter and with it")
    samples, result = measure(run)
    if as_json:
        write_json({"run": run.name, "samples": samples, "result": result})
    else:
        _show(run, samples, result)


def measure(run: "RunFolder") -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A few answers to held-out questions, and the share of all that base and adapter answer word for word.

    Raises what `process.measure` raises.
    """
    from qlora_tui.evaluation import process, results
    from qlora_tui.evaluation.tasks import AnswersTask
    from qlora_tui.starter import HELDOUT_DATA

    task = AnswersTask(name="exact_match", data=str(HELDOUT_DATA), max_tokens=_MAX_TOKENS, batch_rows=_BATCH_ROWS)
    for message in process.measure(run, task):
        if message["kind"] == "progress" and message["done"] == message["total"]:
            narrate(f"{message['side']}: {message['done']} questions answered")
    found = results.read_all(run)[task.name]
    rows = found["per_row"]
    samples = [
        {key: row[key] for key in ("question", "expected")} | {side: row[side]["answer"] for side in task.sides}
        for row in rows[:: max(1, len(rows) // _SAMPLES)][:_SAMPLES]
    ]
    shares = {f"{side}_exact_match": found[side]["exact_match"] for side in task.sides}
    return samples, {"questions": found["questions"], **shares}


def _show(run: "RunFolder", samples: list[dict[str, str]], result: dict[str, Any]) -> None:
    from qlora_tui.cli.output import write_line
    from qlora_tui.runs.narration import short
    from qlora_tui.terminal import printable

    for sample in samples:
        write_line(printable(short(sample["question"]), one_line=True))
        for label, key in (("before", "base"), ("after", "adapter"), ("expected", "expected")):
            write_line(f"  {label:8}  {printable(short(sample[key]), one_line=True)}")
    write_line(
        f"exact match on {result['questions']} held-out questions: "
        f"{result['base_exact_match']:.1%} before, {result['adapter_exact_match']:.1%} after"
    )
    narrate(f"talk to it: qlora-tui chat {run.name}")
    narrate(f"look at it again: qlora-tui runs show {run.name}")
    narrate("train on your own data: qlora-tui train --help")
