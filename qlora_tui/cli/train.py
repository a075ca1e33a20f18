"""`train`: from a preset, a file or flags to a run folder and a worker, then its progress."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.options import Detach, JsonEvents, Replace, ReplanOnOom, RunName, Settings, Yes
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qlora_tui.config.run import RunConfig
    from qlora_tui.runs.store import RunFolder


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET|FILE]",
            autocompletion=completion.targets,
            help="Preset name or .toml file; flags override it. Default with only --data or --set: starter.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", autocompletion=completion.models, help="Base model: a hub id or a folder."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            autocompletion=completion.datasets,
            help="Training data: a known set, a file, a folder or a hub id.",
        ),
    ] = None,
    name: RunName = None,
    replace: Replace = False,
    settings: Settings = None,
    detach: Detach = False,
    as_json: JsonEvents = False,
    replan_on_oom: ReplanOnOom = False,
    yes: Yes = False,
) -> None:
    """Fine-tune a model in a separate process and show its progress.

    The run continues when the terminal is closed. Ctrl-C stops it with a checkpoint that `resume` continues from; a
    second Ctrl-C cancels it.
    """
    from qlora_tui.cli.consent import allow_downloads
    from qlora_tui.cli.new_run import check_name, new_run
    from qlora_tui.config.contradictions import without_effect

    check_name(name, replace=replace)
    preset, config = _configure(target, model, data, settings or [])
    for sentence in without_effect(config) if detach else ():  # in the foreground the worker says it
        narrate(f"warning: {sentence}")
    allow_download = allow_downloads(config, yes=yes)
    run = new_run(config, name, preset, replace=replace)
    launch(run, detach=detach, as_json=as_json, allow_download=allow_download, replan_on_oom=replan_on_oom)


def _configure(
    target: str | None, model: str | None, data: str | None, settings: list[str]
) -> tuple[str | None, "RunConfig"]:
    from qlora_tui.cli.configuration import configured
    from qlora_tui.config.model import STARTER
    from qlora_tui.config.presets import split_target
    from qlora_tui.errors import UsageError
    from qlora_tui.runs.freeze import frozen

    if target is None and model is None and data is None and not settings:
        raise UsageError(
            "nothing to train was named",
            hint="Try `qlora-tui train starter`, or see `qlora-tui presets list` and `qlora-tui train --help`.",
        )
    flags = [("model.id", model), ("data.source", data)]
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags if value is not None]
    named = model is not None or any(text.partition("=")[0].strip() in ("model.id", "model") for text in settings)
    if target is None and not named:
        target = STARTER  # Its model learns little with settings for larger ones.
    preset, file = split_target(target) if target is not None else (None, None)
    return target, frozen(configured(preset, file, [*overrides, *settings]))


def launch(
    run: "RunFolder",
    *,
    detach: bool,
    as_json: bool,
    allow_download: bool = False,
    replan_on_oom: bool = False,
    accept_changed_data: bool = False,
    settings: "Sequence[str]" = (),
) -> None:
    """Start the worker and follow it to its end, or say how to follow it. Exits with the run's outcome."""
    from qlora_tui.cli import foreground
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.runs import jobs

    def start() -> None:
        jobs.start(
            run,
            allow_download=allow_download,
            replan_on_oom=replan_on_oom,
            accept_changed_data=accept_changed_data,
            settings=settings,
        )

    if detach:
        start()
        if as_json:
            write_json({"run": run.name, "folder": str(run.path)})
        else:
            write_line(run.name)
        narrate(f"started {run.name}; watch it with: qlora-tui watch {run.name}")
        return
    narrate(f"run {run.name} in {run.path}")
    foreground.run_to_end(run, start, as_json=as_json)
