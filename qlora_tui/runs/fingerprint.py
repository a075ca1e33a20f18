"""What plan.json says of the data and the model a run began with, and refusing to resume on other data."""

import json
from typing import Any

from qlora_tui import atomic
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import DataError
from qlora_tui.runs.store import RunFolder


def check_data(run: RunFolder, fingerprint: str, *, resuming: bool, accept: bool) -> None:
    """Raise DataError when a run is resumed on rows or an order other than those it began with."""
    began_with = read_plan(run).get("data_fingerprint")
    if resuming and not accept and began_with not in (None, fingerprint):
        raise DataError(
            f"the dataset of run {run.name!r} has changed since it started",
            hint="Restore the data, or go on with the changed rows: `qlora-tui resume --accept-changed-data`.",
        )


def record(run: RunFolder, **facts: Any) -> None:
    """Add facts that became known only while the run was prepared to plan.json."""
    plan = read_plan(run)
    if any(plan.get(key) != value for key, value in facts.items()):
        atomic.write_json(run.plan, {**plan, **facts})


def pinned(run: RunFolder, config: RunConfig) -> RunConfig:
    """The configuration with the model's commit that the run began with: a branch may have moved on since."""
    commit = read_plan(run).get("model_commit")
    if not isinstance(commit, str):
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": commit})})


def read_plan(run: RunFolder) -> dict[str, Any]:
    """plan.json, or nothing when it is missing or damaged: no run fails for it."""
    try:
        plan = json.loads(run.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return plan if isinstance(plan, dict) else {}
