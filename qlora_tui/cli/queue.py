"""`queue`: runs that start one after another."""

from typing import Annotated

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import Noun
from qlora_tui.cli.options import Json, Replace, RunName, Settings, Yes
from qlora_tui.terminal import narrate

app = Noun("Start runs one after another.")


@app.command()
def add(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE", autocompletion=completion.targets, help="A preset's name or a .toml file."
        ),
    ],
    name: RunName = None,
    replace: Replace = False,
    settings: Settings = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Add a run to the queue.

    It starts when the runs before it have ended and enough memory is free.
    """
    from qlora_tui.cli.configuration import configured
    from qlora_tui.cli.consent import allow_downloads
    from qlora_tui.cli.new_run import check_name, new_run
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.config.presets import split_target
    from qlora_tui.runs import queue
    from qlora_tui.runs.freeze import frozen

    check_name(name, replace=replace)
    preset, file = split_target(target)
    config = frozen(configured(preset, file, settings or []))
    allow_download = allow_downloads(config, yes=yes)
    run = new_run(config, name, target, replace=replace)
    queue.add(run.name, allow_download=allow_download)
    queue.ensure_running()
    if as_json:
        write_json({"run": run.name, "folder": str(run.path)})
    else:
        write_line(run.name)
    narrate(f"{run.name} waits in the queue; watch it with: qlora-tui watch {run.name}")


@app.command("list")
def list_queue(as_json: Json = False) -> None:
    """List the queued runs in starting order."""
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.runs import queue
    from qlora_tui.runs.waiting import waiting

    names = [entry.name for entry in waiting()]
    if as_json:
        write_json({"waiting": names, "running": queue.is_running()})
    elif names:
        write_table(["name"], [[name] for name in names])
    else:
        narrate("nothing waits; `qlora-tui queue add PRESET` puts a run into the queue")


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="RUN", autocompletion=completion.runs, help="Name of a run in the queue.")
    ],
    as_json: Json = False,
) -> None:
    """Remove a run from the queue. Its folder is kept."""
    from qlora_tui.cli.output import write_json
    from qlora_tui.errors import NotFoundError
    from qlora_tui.runs import queue

    if not queue.remove(name):
        raise NotFoundError(f"no run named {name!r} in the queue", hint="See `qlora-tui queue list`.")
    if as_json:
        write_json({"removed": name})
    narrate(f"took {name} out of the queue; start it with: qlora-tui resume {name}")


@app.command("run")
def run_queue() -> None:
    """Run the queue in the foreground.

    `queue add` runs it in the background.
    """
    from qlora_tui.runs import queue

    queue.work_off(narrate)
