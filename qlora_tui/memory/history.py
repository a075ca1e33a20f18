"""Estimates of finished runs beside the peaks that were measured, read from the run folders of this machine."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from qlora_tui.errors import StorageError
from qlora_tui.memory.device import Kind
from qlora_tui.memory.stored_estimate import BEFORE_START, OF_ROWS, StoredEstimate
from qlora_tui.runs import jobs, store
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.store import RunFolder


@dataclass(frozen=True, slots=True)
class Checked:
    """One finished run. Bytes allocated by PyTorch on a GPU, resident bytes of the process on a CPU."""

    run: str
    model: str
    device: str
    kind: Kind
    source: str
    before_bytes: int
    """Estimate shown before the start; its rows may have been assumed to have the maximum length."""

    estimated_bytes: int
    """Estimate for the longest trained rows, compared with the measured peak."""

    measured_bytes: int

    @property
    def error(self) -> float:
        """Share by which the estimate was too high; negative when it was too low."""
        return self.estimated_bytes / self.measured_bytes - 1


def checked_runs() -> list[Checked]:
    """All finished runs with an estimate, the newest first. Runs that cannot be read are left out."""
    found = (_checked(run) for run in store.all_runs())
    return [each for each in found if each is not None]


def remark(kind: Kind) -> str:
    """How far off estimates were on this machine, as a sentence; empty when nothing was checked."""
    errors = [abs(each.error) for each in checked_runs() if each.kind == kind]
    if not errors:
        return ""
    runs = "1 finished run" if len(errors) == 1 else f"{len(errors)} finished runs"
    return f"Checked here by {runs}: off by {median(errors):.1%} in the median, {max(errors):.1%} at most."


def _checked(run: RunFolder) -> Checked | None:
    plan = read_plan(run)
    before = StoredEstimate.of(plan)
    of_rows = StoredEstimate.of(plan, OF_ROWS) or before
    if before is None or of_rows is None or of_rows.kind not in ("cuda", "cpu"):
        return None
    expected: Any = plan.get(OF_ROWS) or plan.get(BEFORE_START)
    try:
        finished = jobs.replay(run).finished
    except StorageError:
        return None
    if finished is None or not finished.peak_bytes:
        return None
    return Checked(
        run=run.name,
        model=str(plan.get("model", "")),
        device=str(expected.get("device", "")),
        kind="cuda" if of_rows.kind == "cuda" else "cpu",
        source=str(expected.get("source", "")),
        before_bytes=before.full_bytes,
        estimated_bytes=of_rows.comparable_bytes,
        measured_bytes=finished.peak_bytes,
    )
