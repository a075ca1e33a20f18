"""From a configuration to a new run's folder: its name, and what plan.json says before the worker starts."""

import platform
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qlora_tui import __version__, hardware
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError
from qlora_tui.runs import deleted, store
from qlora_tui.runs.deleted import DeletedRun
from qlora_tui.runs.store import RunFolder
from qlora_tui.runs.versions import library_versions


def create(
    config: RunConfig, name: str | None, preset: str | None, *, estimate: dict[str, Any] | None = None
) -> RunFolder:
    """The folder of a new run under `name`, or under a free name made from the preset or the model.

    `estimate`: the memory estimate that was shown before the start, for plan.json; default: one is made now.
    Expired deleted runs are removed first to free disk space. Raises what
    `store.create` raises.
    """
    deleted.purge()
    plan = _plan(config, preset, estimate)
    while name is None:
        with suppress(RunConflictError):  # another shell took the free name first
            return store.create(suggested_name(config, preset), config, plan)
    return store.create(name, config, plan)


def replace(config: RunConfig, name: str, preset: str | None) -> tuple[RunFolder, DeletedRun | None]:
    """Create a run under `name`; a run that has this name is deleted into the bin and returned as well.

    Raises RunConflictError while that run is alive, and what `store.create` raises; then that run is as it was.
    """
    try:
        before = deleted.delete(store.find(name))
    except NotFoundError:
        return create(config, name, preset), None
    try:
        return create(config, name, preset), before
    except BaseException:
        deleted.restore(before)
        raise


def suggested_name(config: RunConfig, preset: str | None) -> str:
    """The free name that a run gets when it is given none."""
    return store.free_name(Path(preset or config.model.id).name.removesuffix(".toml"))


def _plan(config: RunConfig, preset: str | None, estimate: dict[str, Any] | None) -> dict[str, Any]:
    from qlora_tui.memory.record import before_start
    from qlora_tui.memory.stored_estimate import BEFORE_START

    machine = hardware.snapshot()
    estimate = estimate or before_start(config, machine)
    return {
        "program_version": __version__,
        "created_s": round(time.time(), 3),
        "preset": preset,
        "model": config.model.id,
        "model_revision": config.model.revision,
        "data": config.data.source,
        "data_revision": config.data.revision,
        "python": platform.python_version(),
        "versions": library_versions(),
        "machine": {"platform": platform.platform(), **asdict(machine)},
        **({BEFORE_START: estimate} if estimate is not None else {}),
    }
