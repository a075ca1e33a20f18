"""Create the folder of a new run, optionally replacing an existing run."""

from typing import TYPE_CHECKING

from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.runs.store import RunFolder


def check_name(name: str | None, *, replace: bool) -> None:
    """Check a name before any question or download. Raises UsageError, RunConflictError."""
    from qlora_tui.errors import UsageError
    from qlora_tui.runs import store

    if replace and name is None:
        raise UsageError("--replace needs --name", hint="Without --name, an unused name is generated.")
    if name is not None and replace:
        store.check_name(name)
    elif name is not None:
        store.check_free(name)


def new_run(config: "RunConfig", name: str | None, preset: str | None, *, replace: bool) -> "RunFolder":
    """Create a run; with `replace`, a run of the same name goes to the bin.

    Raises what `check_name` and `creation.create` raise.
    """
    from qlora_tui.runs import creation

    check_name(name, replace=replace)
    if name is None or not replace:
        return creation.create(config, name, preset)
    run, before = creation.replace(config, name, preset)
    if before is not None:
        narrate(f"the earlier {name} is in the bin for 7 days: qlora-tui runs restore {name} --name NEW")
    return run
