"""How fast a run trains and how long it has left, from its recent steps."""

from itertools import pairwise
from statistics import median

from qlora_tui.runs.state import RunState

_RECENT_STEPS = 50


def seconds_per_step(state: RunState) -> float | None:
    """Median wall time of the recent steps, so that a pause for a checkpoint or an evaluation does not count."""
    recent = state.steps.points()[-_RECENT_STEPS:]
    paces = [
        (later.time_s - earlier.time_s) / (later.step - earlier.step)
        for earlier, later in pairwise(recent)
        if later.step > earlier.step and later.time_s > earlier.time_s
    ]
    return median(paces) if paces else None


def remaining_s(state: RunState) -> float | None:
    """Seconds of training left at the recent pace, or None while it is not known."""
    pace_s = seconds_per_step(state)
    if pace_s is None or state.plan is None:
        return None
    return pace_s * max(state.plan.total_steps - state.step_number, 0)
