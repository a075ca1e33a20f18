"""What plan.json says of the data a run began with, and refusing to resume on other data."""

import json
from typing import Any

from qlora_tui import atomic
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


def record_data(run: RunFolder, fingerprint: str) -> None:
    """Write the fingerprint of content and order into plan.json."""
    plan = read_plan(run)
    if plan.get("data_fingerprint") != fingerprint:
        atomic.write_json(run.plan, {**plan, "data_fingerprint": fingerprint})


def read_plan(run: RunFolder) -> dict[str, Any]:
    """plan.json, or nothing when it is missing or damaged: no run fails for it."""
    try:
        plan = json.loads(run.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plan if isinstance(plan, dict) else {}
