"""What the commands of `eval` that measure a run share: their options, the measurement itself, and its table."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec

import typer

from qlora_tui.cli.command import MEASUREMENT_OPTIONS
from qlora_tui.cli.options import Json, Run, Yes
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.evaluation.comparison import MetricRow
    from qlora_tui.evaluation.predictions import Side
    from qlora_tui.evaluation.tasks import Task
    from qlora_tui.runs.store import RunFolder

Own = ParamSpec("Own")


@dataclass(frozen=True)
class Common:
    """The options of every measurement."""

    run: Run
    side: Annotated[
        Literal["both", "base", "adapter"],
        typer.Option("--side", rich_help_panel=MEASUREMENT_OPTIONS, help="Which model to measure."),
    ] = "both"
    checkpoint: Annotated[
        int | None,
        typer.Option(
            "--checkpoint",
            rich_help_panel=MEASUREMENT_OPTIONS,
            metavar="STEP",
            help="Checkpoint step to use instead of the finished adapter.",
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", rich_help_panel=MEASUREMENT_OPTIONS, help="Where to load the model."),
    ] = "auto"
    limit: Annotated[
        int | None, typer.Option("--limit", rich_help_panel=MEASUREMENT_OPTIONS, min=1, help="Maximum number of rows.")
    ] = None
    batch: Annotated[
        int, typer.Option("--batch", rich_help_panel=MEASUREMENT_OPTIONS, min=1, help="Rows per forward pass.")
    ] = 8
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the result. Default: generated from the task.")
    ] = None
    as_json: Json = False
    yes: Yes = False

    def task(self, usual_name: str) -> dict[str, Any]:
        """The fields that every Task has, as its keywords."""
        sides: tuple[Side, ...] = ("base", "adapter") if self.side == "both" else (self.side,)
        return {
            "sides": sides, "checkpoint": self.checkpoint, "device": self.device, "limit": self.limit,
            "batch_rows": self.batch, "name": self.name or usual_name,
        }  # fmt: skip


def measurement(**defaults: Any) -> Callable[[Callable[Concatenate[Common, Own], None]], Callable[..., None]]:
    """Makes `command(common, its own options)` a command with the options of both.

    `defaults` are those of Common's options that this command has different ones for.
    """

    def with_common(command: Callable[Concatenate[Common, Own], None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        run, *others = inspect.signature(Common).parameters.values()
        others = [one.replace(default=defaults.get(one.name, one.default)) for one in others]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (run, *own, *others)]

        @wraps(command)
        def parsed(**given: Any) -> None:
            common = Common(**{one.name: given.pop(one.name) for one in fields(Common)})
            command(common, **given)  # type: ignore[call-arg]

        # What typer reads to find the options.
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {one.name: one.annotation for one in parameters}
        return parsed

    return with_common


def measure(common: Common, task: "Task") -> None:
    """Measure in a child process and show the results next to those of the base model and the previous measurement."""
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation import comparison, process, results
    from qlora_tui.runs import store

    run = store.find(common.run)
    results.file_of(run, task.name)
    outcome: dict[str, Any] = {}
    for message in process.measure(run, task, allow_download=_may_download(run, task, yes=common.yes)):
        if message["kind"] == "stage":
            narrate(message["text"])
        elif message["kind"] == "progress":
            narrate(f"{message['side']}: {message['done']} of {message['total']}")
        else:
            outcome = message
    rows = comparison.with_last_run(run, task.name)
    if common.as_json:
        kept = {key: value for key, value in outcome.items() if key not in ("kind", "time_s")}
        write_json({**kept, "differences": [{"metric": row.metric, **one} for row in rows for one in row.differences]})
    else:
        _show(outcome, task.sides)
        _tell_differences(rows)


def _may_download(run: "RunFolder", task: "Task", *, yes: bool) -> bool:
    """Whether the process may: what is missing, model and data, was named with its size and agreed to."""
    from qlora_tui.cli.consent import allow_downloads
    from qlora_tui.config.data import DataSpec
    from qlora_tui.config.model import ModelSpec
    from qlora_tui.evaluation.tasks import HarnessTask, LossTask
    from qlora_tui.runs.fingerprint import pinned

    config = pinned(run, run.load_config())
    source = getattr(task, "source", None)
    wanted: dict[str, Any] = {}
    if source is not None:
        wanted["data"] = DataSpec(source=source.source, split=source.split)
    elif not isinstance(task, LossTask):
        wanted["data"] = DataSpec()
    if config.adapter.kind == "full":
        wanted["model"] = ModelSpec()  # its own weights are in the run
    allowed = allow_downloads(config.model_copy(update=wanted), yes=yes, to_train=False)
    # Which files lm-eval's own tasks need is known to lm-eval alone.
    return allowed or (yes and isinstance(task, HarnessTask))


def _show(outcome: dict[str, Any], sides: "tuple[Side, ...]") -> None:
    """Each number of each side in one table; per-subject and nested ones below their task."""
    from qlora_tui.cli.output import write_line, write_table

    flat = {side: _flat(outcome.get(side, {})) for side in sides}
    names = list(dict.fromkeys(name for numbers in flat.values() for name in numbers))
    if names:
        write_table(["metric", *sides], [[name, *(number(flat[side].get(name)) for side in sides)] for name in names])
    for side, file in outcome.get("files", {}).items():
        write_line(f"{side}\t{file}")
    narrate(f"kept in {outcome['file']}")


def _tell_differences(rows: "Sequence[MetricRow]") -> None:
    """One sentence for each two that answered the same questions."""
    from qlora_tui.evaluation.comparison import number as short

    for row in rows:
        for found in row.differences:
            verdict = f"{found['better']} is better" if found["better"] else "no difference beyond noise"
            narrate(
                f"{row.metric}, {found['to']} - {found['from']}: {short(found['difference'])} "
                f"({short(found['low'])} to {short(found['high'])} in 95% over {found['questions']} rows): {verdict}"
            )


def _flat(numbers: dict[str, Any], prefix: str = "") -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in numbers.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found


def number(value: float | None) -> str:
    """Four decimals, whole numbers with thousands apart, "-" for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1e5 else f"{value:.4f}"


def stem(text: str) -> str:
    """A file's, set's or task's name as part of a result's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).name.split(".")[0]).strip("-._")[:40] or "data"
