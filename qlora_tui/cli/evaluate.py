"""`eval`: how good a run is beside its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli.options import Json, Run, Yes
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.evaluation.predictions import Side
    from qlora_tui.evaluation.tasks import Task

app = typer.Typer(
    help="Measure a run beside its base. Results are kept in the run's folder.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

SideName = Annotated[str, typer.Option("--side", metavar="both|base|adapter", help="Who is measured.")]
Checkpoint = Annotated[
    int | None, typer.Option("--checkpoint", metavar="STEP", help="This checkpoint instead of the finished adapter.")
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to load the model.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many rows.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Rows computed at once.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the result. Left out: made from the task.")]


@app.command()
def loss(
    run: Run,
    data: Annotated[str | None, typer.Option("--data", help="A dataset in place of the held-out rows.")] = None,
    side: SideName = "both",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    limit: Limit = None,
    batch: Batch = 8,
    name: Name = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Loss and perplexity per token, over trained tokens and over all."""
    from qlora_tui.evaluation.tasks import LossTask

    common = _common(side, checkpoint, device, limit, batch, name or f"loss-{_stem(data) if data else 'held-out'}")
    _measure(run, LossTask(data=_absolute(data), **common), as_json, yes)


@app.command()
def answers(
    run: Run,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Questions with expected answers: any dataset.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 64,
    side: SideName = "both",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    limit: Limit = None,
    batch: Batch = 16,
    name: Name = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Exact match, token F1, ROUGE-L and chrF of greedy answers."""
    from qlora_tui.evaluation.tasks import AnswersTask

    common = _common(side, checkpoint, device, limit, batch, name or f"answers-{_stem(data)}")
    _measure(run, AnswersTask(data=str(_absolute(data)), max_tokens=max_tokens, **common), as_json, yes)


@app.command()
def mmlu(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with subject, input and output (A to D).")],
    side: SideName = "both",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    limit: Limit = None,
    batch: Batch = 8,
    name: Name = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Multiple choice by restricted logits, per subject; the prompts, zero-shot or five-shot, are the file's."""
    from qlora_tui.evaluation.tasks import MmluTask

    common = _common(side, checkpoint, device, limit, batch, name or f"mmlu-{_stem(str(file))}")
    _measure(run, MmluTask(file=str(file.absolute()), **common), as_json, yes)


@app.command()
def generate(
    run: Run,
    questions: Annotated[Path, typer.Argument(metavar="QUESTIONS", help="jsonl with question_id and text, or .txt.")],
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=5)] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", min=0.01, max=1)] = 0.9,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 512,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed and settings, same answers.")] = 0,
    side: SideName = "adapter",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    limit: Limit = None,
    batch: Batch = 8,
    name: Name = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Answers to a question file, for a judge; goes on where it was interrupted."""
    from qlora_tui.chat.protocol import Sampling
    from qlora_tui.evaluation.tasks import GenerateTask

    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    common = _common(side, checkpoint, device, limit, batch, name or _stem(str(questions)))
    task = GenerateTask(questions=str(questions.absolute()), sampling=sampling, seed=seed, **common)
    _measure(run, task, as_json, yes)


@app.command()
def harness(
    run: Run,
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks of lm-eval.")],
    shots: Annotated[int | None, typer.Option("--shots", min=0, help="Examples before each question.")] = None,
    include: Annotated[Path | None, typer.Option("--include", help="Folder with task files of your own.")] = None,
    side: SideName = "both",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    limit: Limit = None,
    batch: Batch = 8,
    name: Name = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Any task of lm-eval, by its own code. Needs the extra: pip install 'qlora-tui[eval]'."""
    from qlora_tui.evaluation.tasks import HarnessTask

    common = _common(side, checkpoint, device, limit, batch, name or f"harness-{_stem(tasks[0])}")
    folder = str(include.absolute()) if include else None
    _measure(run, HarnessTask(tasks=tuple(tasks), shots=shots, include=folder, **common), as_json, yes)


@app.command()
def quant(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="starter, a folder or a hub id.")],
    text: Annotated[Path | None, typer.Option("--text", help="Measure the perplexity of this text, too.")] = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """What each way to store the weights costs: error by layer, bits per parameter, perplexity."""
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.evaluation import process

    file = text.absolute() if text else None
    found: dict[str, Any] = {}
    for message in process.study_quantization(model, file, allow_download=yes):
        if message["kind"] == "stage":
            narrate(message["text"])
        found = message
    if as_json:
        write_json({key: value for key, value in found.items() if key != "kind"})
        return
    rows = [
        [
            one["scheme"], f"{one['bits_per_parameter']:.3f}", f"{one['relative_error']:.5%}",
            f"{one['normal_relative_error']:.5%}", _number(one["perplexity"]),
        ]
        for one in found["schemes"]
    ]  # fmt: skip
    write_table(["stored as", "bits a parameter", "relative error", "on normal weights", "perplexity"], rows)
    if found["perplexity"] is not None:
        narrate(f"perplexity with exact weights: {found['perplexity']:.4f}")


def _stem(text: str) -> str:
    import re

    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).name.split(".")[0]).strip("-._")[:40] or "data"


def _absolute(data: str | None) -> str | None:
    """A path that exists made absolute; names of sets and hub ids as they are."""
    return str(Path(data).absolute()) if data is not None and Path(data).exists() else data


def _common(side: str, checkpoint: int | None, device: str, limit: int | None, batch: int, name: str) -> dict[str, Any]:
    from qlora_tui.chat.client import DEVICES
    from qlora_tui.errors import UsageError, nearest

    sides: dict[str, tuple[Side, ...]] = {"both": ("base", "adapter"), "base": ("base",), "adapter": ("adapter",)}
    if side not in sides:
        raise UsageError(f"--side {side}: nobody is called that", hint=nearest(side, list(sides)))
    if device not in DEVICES:
        raise UsageError(f"--device {device}: no such device", hint=nearest(device, list(DEVICES)))
    return {
        "sides": sides[side], "checkpoint": checkpoint, "device": device, "limit": limit, "batch_rows": batch,
        "name": name,
    }  # fmt: skip


def _measure(name: str, task: "Task", as_json: bool, yes: bool) -> None:
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation import process, results
    from qlora_tui.runs import store

    run = store.find(name)
    results.file_of(run, task.name)
    outcome: dict[str, Any] = {}
    for message in process.measure(run, task, allow_download=yes):
        if message["kind"] == "stage":
            narrate(message["text"])
        elif message["kind"] == "progress":
            narrate(f"{message['side']}: {message['done']} of {message['total']}")
        else:
            outcome = message
    if as_json:
        write_json({key: value for key, value in outcome.items() if key not in ("kind", "time_s")})
    else:
        _show(outcome, task.sides)


def _show(outcome: dict[str, Any], sides: "tuple[Side, ...]") -> None:
    """Each number of each side in one table; per-subject and nested ones below their task."""
    from qlora_tui.cli.output import write_table

    flat = {side: _flat(outcome.get(side, {})) for side in sides}
    names = list(dict.fromkeys(name for numbers in flat.values() for name in numbers))
    if names:
        rows = [[name, *(_number(flat[side].get(name)) for side in sides)] for name in names]
        write_table(["", *sides], rows)
    for side, file in outcome.get("files", {}).items():
        typer.echo(f"{side}\t{file}")
    narrate(f"kept in {outcome['file']}")


def _flat(numbers: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in numbers.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1e5 else f"{value:.4f}"
