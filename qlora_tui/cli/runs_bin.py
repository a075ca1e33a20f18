"""`runs delete`, `restore`, `bin`, `empty-bin` and `rm`: deleted runs and how they are restored."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.options import Json, Yes
from qlora_tui.terminal import narrate
from qlora_tui.units import disk

if TYPE_CHECKING:
    from qlora_tui.runs.deleted import DeletedRun
    from qlora_tui.runs.store import RunFolder


def register(app: typer.Typer) -> None:
    app.command()(delete)
    app.command()(rm)
    app.command()(restore)
    app.command("bin")(list_bin)
    app.command()(empty_bin)


_Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", autocompletion=completion.runs, help="Names of runs; `qlora-tui runs list`."),
]


def delete(names: _Runs, as_json: Json = False) -> None:
    """Move runs to the bin. `runs restore` can restore them for 7 days."""
    from qlora_tui.cli.output import write_json
    from qlora_tui.runs import deleted

    entries = [deleted.delete(run) for run in _idle(names)]
    if as_json:
        write_json({"deleted": [_facts(entry) for entry in entries]})
    for entry in entries:
        narrate(f"{entry.name} is in the bin for 7 days; restore it with: qlora-tui runs restore {entry.name}")


def rm(names: _Runs, yes: Yes = False, as_json: Json = False) -> None:
    """Delete runs permanently.

    Removes events, checkpoints and adapters without moving them to the bin. Asks for confirmation.
    """
    from qlora_tui.cli.consent import confirmed
    from qlora_tui.cli.output import write_json
    from qlora_tui.runs import jobs, queue, store

    runs = _idle(names)
    sizes = {run.name: store.size_bytes(run) for run in runs}
    total = disk(sum(sizes.values()))
    confirmed(f"Delete {', '.join(str(run.path) for run in runs)} ({total}) permanently?", yes=yes)
    for run in runs:
        with jobs.hold(run), queue.removing(run.name):
            store.remove(run)
    if as_json:
        write_json({"deleted": [{"name": name, "size_bytes": freed} for name, freed in sizes.items()]})
    narrate(f"deleted {', '.join(sizes)}; freed {total}")


def _idle(names: list[str]) -> "list[RunFolder]":
    """Return the runs if none of them is active. Raises NotFoundError, RunConflictError."""
    from qlora_tui.errors import RunConflictError
    from qlora_tui.runs import jobs, store

    runs = [store.find(name) for name in dict.fromkeys(names)]
    for run in runs:
        if jobs.is_alive(run):
            raise RunConflictError(f"{run.name} is running", hint=f"Stop it first: `qlora-tui stop {run.name}`.")
    return runs


def restore(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a deleted run; `qlora-tui runs bin` lists them.")],
    new_name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of the restored run. Default: its original name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Restore a deleted run from the bin.

    If several runs have this name, the one that was deleted last is restored.
    """
    from qlora_tui.cli.output import write_json
    from qlora_tui.runs import deleted

    run = deleted.restore(deleted.find(name), new_name)
    if as_json:
        write_json({"restored": run.name, "folder": str(run.path)})
    narrate(f"restored {run.name}")


def list_bin(as_json: Json = False) -> None:
    """List deleted runs that can be restored, with expiry dates."""
    from qlora_tui.cli.output import moment, write_json, write_table
    from qlora_tui.runs import deleted

    deleted.purge()
    found = [_facts(entry) for entry in deleted.entries()]
    if as_json:
        write_json({"bin": found})
    elif found:
        rows = [
            [each["name"], moment(each["deleted_s"]), moment(each["until_s"]), disk(each["size_bytes"])]
            for each in found
        ]
        write_table(["name", "deleted", "kept until", "size"], rows)
    else:
        narrate("the bin is empty")


def empty_bin(yes: Yes = False, as_json: Json = False) -> None:
    """Delete all runs in the bin permanently."""
    from qlora_tui.cli.consent import confirmed
    from qlora_tui.cli.output import write_json
    from qlora_tui.runs import deleted

    found = [_facts(entry) for entry in deleted.entries()]
    freed_bytes = sum(each["size_bytes"] for each in found)
    if found:
        count = f"{len(found)} {'run' if len(found) == 1 else 'runs'}"
        confirmed(f"Delete {count} with {disk(freed_bytes)} permanently?", yes=yes)
        deleted.purge(older_than_s=0)
    if as_json:
        write_json({"deleted": [each["name"] for each in found], "freed_bytes": freed_bytes})
    narrate(f"freed {disk(freed_bytes)}" if found else "the bin is empty")


def _facts(entry: "DeletedRun") -> dict[str, Any]:
    from qlora_tui.runs import store

    return {
        "name": entry.name,
        "deleted_s": round(entry.deleted_s, 3),
        "until_s": round(entry.until_s, 3),
        "size_bytes": store.size_bytes(entry.run),
    }
