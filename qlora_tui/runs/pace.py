"""Durations of each kind of work in a run, and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qlora_tui.runs.state import RunState

_RECENT_STEPS = 50
_RECENT_PAUSES = 8
_OUTLIER = 5.0
"""A step that took this many times the median was delayed by something other than training."""

_FORWARD_SHARE = 1 / 3
"""Share of the forward pass in a training step: used to predict evaluations that were not measured yet."""


class Pace(NamedTuple):
    """Durations of the most recent work of each kind, in seconds, measured in this run."""

    mark_s: float = 0.0
    """When the last work ended, in seconds since the epoch; 0 if unknown."""

    steps_s: tuple[float, ...] = ()
    evals_s: tuple[float, ...] = ()
    saves_s: tuple[float, ...] = ()
    samples_s: tuple[float, ...] = ()
    """Duration of answering all sample prompts once."""

    sampled: bool = False
    """Whether the last work was a sample answer: the next one belongs to the same round."""

    def began(self, time_s: float) -> Pace:
        """Return the pace with a new start time for the next measurement; 0 if there is none."""
        return self._replace(mark_s=time_s, sampled=False)

    def stepped(self, times_s: Sequence[float]) -> Pace:
        """Return the pace after optimizer steps that ended at these times."""
        times_s = [self.mark_s, *times_s][-_RECENT_STEPS - 1 :]
        new = tuple(max(later - earlier, 0.0) for earlier, later in pairwise(times_s) if earlier)
        return self.began(times_s[-1])._replace(steps_s=(*self.steps_s, *new)[-_RECENT_STEPS:])

    def evaluated(self, time_s: float) -> Pace:
        """Return the pace after an evaluation that ended at this time."""
        return self.began(time_s)._replace(evals_s=self._longer(self.evals_s, time_s))

    def saved(self, time_s: float) -> Pace:
        """Return the pace after a checkpoint that was written at this time."""
        return self.began(time_s)._replace(saves_s=self._longer(self.saves_s, time_s))

    def answered(self, time_s: float) -> Pace:
        """Return the pace after an answer to a sample prompt."""
        rounds = self._longer(self.samples_s, time_s)
        if self.sampled and len(rounds) > 1:
            rounds = (*rounds[:-2], rounds[-2] + rounds[-1])
        return self.began(time_s)._replace(samples_s=rounds, sampled=True)

    def _longer(self, durations_s: tuple[float, ...], time_s: float) -> tuple[float, ...]:
        return (*durations_s, max(time_s - self.mark_s, 0.0))[-_RECENT_PAUSES:] if self.mark_s else durations_s


class Remaining(NamedTuple):
    """Remaining work of a run."""

    seconds: float
    at_least: bool
    """Whether some remaining work has an unknown duration."""


def seconds_per_step(state: RunState) -> float | None:
    """Return the mean wall time of the recent steps, without evaluations, checkpoints, samples and outliers."""
    steps_s = state.pace.steps_s
    if not steps_s:
        return None
    usual_s = median(steps_s)
    return fmean(step_s for step_s in steps_s if step_s <= usual_s * _OUTLIER)


def remaining(state: RunState) -> Remaining | None:
    """Return the time left: remaining steps, evaluations, checkpoints and samples.

    Each kind is assumed to take as long as before. None while the pace of the steps is unknown.
    """
    step_s, plan = seconds_per_step(state), state.plan
    if step_s is None or plan is None:
        return None
    pace = state.pace
    evals, saves, samples = to_come(state)
    eval_s, save_s, sample_s = map(_usual, (pace.evals_s, pace.saves_s, pace.samples_s))
    if eval_s is None:
        rows = state.dataset.eval_rows if state.dataset else 0
        eval_s = step_s * _FORWARD_SHARE * rows / max(plan.effective_batch_rows, 1)
    seconds = step_s * max(plan.total_steps - state.step_number, 0)
    seconds += evals * eval_s + saves * (save_s or 0.0) + samples * (sample_s or 0.0)
    return Remaining(seconds, at_least=bool(samples) and sample_s is None)


def remaining_s(state: RunState) -> float | None:
    """Return the seconds of `remaining`, or None while they are not known."""
    left = remaining(state)
    return None if left is None else left.seconds


def to_come(state: RunState) -> tuple[int, int, int]:
    """Return the number of remaining evaluations, checkpoints and rounds of samples.

    The finished adapter, which is written and checked at the end, counts as a checkpoint.
    """
    plan = state.plan
    if plan is None:
        return 0, 0, 0
    total = plan.total_steps
    evals = [point.step for point in state.evals.points()]
    saves = [item.step for item in state.checkpoints]
    first = state.samples[-1].prompt if state.samples else ""
    samples = [item.step for item in state.samples if item.prompt == first]
    save_at_end = int(plan.save_every_steps is not None and total % plan.save_every_steps != 0)
    return (
        _ahead(plan.eval_every_steps, plan.evals_at_end, evals, state),
        _ahead(plan.save_every_steps, save_at_end, saves, state) + (plan.save_every_steps is not None),
        _ahead(plan.sample_every_steps, plan.samples_at_end, samples, state),
    )


def _ahead(every: int | None, at_end: int, done: Sequence[int], state: RunState) -> int:
    """Return the number of remaining pauses of a kind, including one due now; `done` are the steps of past ones."""
    assert state.plan is not None
    step, total = state.step_number, state.plan.total_steps
    is_over = step >= total
    later = (total // every - step // every if every else 0) + (0 if is_over else at_end)
    expected_here = (step > 0 and every is not None and step % every == 0) + (at_end if is_over else 0)
    done_here = sum(1 for other in done if other == step)
    return later + max(expected_here - done_here, 0)


def _usual(durations_s: Sequence[float]) -> float | None:
    return median(durations_s) if durations_s else None
