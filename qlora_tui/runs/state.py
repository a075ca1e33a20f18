"""What a run's events add up to. `fold` is pure and the only interpreter of events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any, Literal, NamedTuple, cast

from qlora_tui.runs import events
from qlora_tui.runs.pace import Pace
from qlora_tui.runs.series import Series
from qlora_tui.runs.smoothing import smoothed

Phase = Literal["created", "running", "replanning", "stopped", "cancelled", "failed", "finished"]

_KEPT_SAMPLES = 200
_KEPT_WARNINGS = 200


class LossSum(NamedTuple):
    """Sums over all steps up to `step`; the curve keeps only some of the steps of a long run."""

    step: int = 0
    loss: float = 0.0
    """Sum of the finite losses, in step order."""
    steps: int = 0
    """Number of finite losses."""
    last: events.Step | None = None
    """The last step."""
    seconds: float = 0.0
    """Total time of all steps, without evaluations and checkpoints."""


class RunState(NamedTuple):
    """Everything a screen or a command shows of a run. Times in seconds since the epoch, sizes in bytes."""

    phase: Phase = "created"
    """What the events say; whether a running run is really alive is known by its lock (`jobs.status`)."""
    name: str = ""
    attempt: int = 0
    pid: int = 0
    process_start_s: float = 0.0
    first_event_s: float = 0.0
    last_event_s: float = 0.0
    last_seq: int = 0
    damaged_lines: int = 0
    """Number of damaged and skipped lines of the log."""
    missing_lines: int = 0
    """Number of lines that were removed from within the log."""
    last_line: int = 0
    """Number of the last line of the log when it was read."""
    stage: events.Stage | None = None
    versions: dict[str, str] | None = None
    resolved: tuple[events.Resolved, ...] = ()
    model: events.ModelLoaded | None = None
    dataset: events.DatasetReady | None = None
    plan: events.TrainingPlanned | None = None
    steps: Series[events.Step] = Series(("loss", "grad_norm"))
    evals: Series[events.Eval] = Series(("loss",))
    samples: tuple[events.Sample, ...] = ()
    checkpoints: tuple[events.Checkpoint, ...] = ()
    resumes: tuple[int, ...] = ()
    """Steps at which an attempt resumed."""
    warnings: tuple[events.Warned, ...] = ()
    replanned: dict[str, Any] | None = None
    """Settings changed by replanning, all of them together."""
    extended: dict[str, Any] | None = None
    """All changes of the length by resumes."""
    acknowledged: tuple[str, ...] = ()
    """Ids of the control messages that were acknowledged."""
    peak_bytes: int = 0
    pace: Pace = Pace()
    train_began_s: float = 0.0
    """When the newest attempt began to train; 0 before it does."""
    earlier_train_s: float = 0.0
    """How long the attempts before the newest trained, each up to its last step."""
    stopped: events.Stopped | None = None
    failed: events.Failed | None = None
    finished: events.Finished | None = None

    best_eval: events.Eval | None = None
    """The evaluation with the lowest loss."""

    loss_sum: LossSum = LossSum()
    loss_sums: tuple[LossSum, ...] = (LossSum(),)
    """At the steps that the run may go back to: at its checkpoints, and where its attempts began."""

    @property
    def device(self) -> events.Resolved | None:
        """Where the newest attempt works, once that was said."""
        return next((choice for choice in self.resolved if choice.field == "model.device"), None)

    @property
    def mean_loss(self) -> float | None:
        """Mean training loss of all steps; None without one that was finite."""
        return self.loss_sum.loss / self.loss_sum.steps if self.loss_sum.steps else None

    @property
    def smoothed_loss(self) -> float | None:
        """Smoothed training loss at the last step; None without a step whose loss was finite."""
        values = smoothed(self.steps.means("loss"))
        return values[-1] if values else None

    @property
    def mean_tokens_per_s(self) -> float | None:
        """Mean speed over all steps, without evaluations and checkpoints."""
        total = self.loss_sum
        return total.last.tokens / total.seconds if total.last and total.seconds else None

    @property
    def train_seconds(self) -> float | None:
        """Training time of all attempts; None before the first step."""
        if self.finished is not None:
            return self.finished.train_seconds
        return self.earlier_train_s + _trained_s(self) or None

    @property
    def step_number(self) -> int:
        """Optimizer steps done."""
        return self.steps.last.step if self.steps.last else 0


def fold(state: RunState, event: events.AnyEvent) -> RunState:
    """The state after `event`. Pure: same state and event, same result."""
    return fold_all(state, [event])


def fold_all(state: RunState, batch: Iterable[events.AnyEvent]) -> RunState:
    """The state after all events of `batch`. Steps that follow each other are taken together."""
    for kind, same in groupby(batch, type):
        if kind is events.Step:
            state = _steps(state, cast("list[events.Step]", list(same)))
        else:
            for event in same:
                state = _other(state, event)
    return state


def _steps(state: RunState, steps: list[events.Step]) -> RunState:
    return state._replace(
        steps=state.steps.extend(steps),
        loss_sum=_added(state.loss_sum, steps),
        pace=state.pace.stepped([step.time_s for step in steps]),
        peak_bytes=max(state.peak_bytes, *(step.peak_bytes for step in steps)),
        last_event_s=steps[-1].time_s,
        last_seq=steps[-1].seq,
    )


def _added(before: LossSum, steps: list[events.Step]) -> LossSum:
    total, count, seconds = before.loss, before.steps, before.seconds
    tokens = before.last.tokens if before.last else 0
    for step in steps:  # One by one: the same sum however the steps are batched.
        if step.loss is not None:
            total, count = total + step.loss, count + 1
        if step.tokens_per_s > 0:
            seconds += (step.tokens - tokens) / step.tokens_per_s
        tokens = step.tokens
    return LossSum(steps[-1].step, total, count, steps[-1], seconds)


def _other(state: RunState, event: events.AnyEvent) -> RunState:
    state = state._replace(
        last_event_s=event.time_s,
        first_event_s=state.first_event_s or event.time_s,
        last_seq=event.seq,
    )
    folded: RunState = _FOLDS[type(event)](state, event)
    return folded


def _created(state: RunState, event: events.Created) -> RunState:
    return state._replace(name=event.name)


def _started(state: RunState, event: events.Started) -> RunState:
    """A new attempt forgets what came after the checkpoint it continues from."""
    kept_step = event.resumed_from_step or 0
    evals = state.evals.up_to(kept_step)
    sums = tuple(item for item in (*state.loss_sums, state.loss_sum) if item.step <= kept_step)
    resumes = tuple(step for step in state.resumes if step < kept_step)
    return state._replace(
        phase="running",
        attempt=event.attempt,
        pid=event.pid,
        process_start_s=event.process_start_s,
        versions=event.versions,
        stage=None,
        resolved=(),
        steps=state.steps.up_to(kept_step, sums[-1].last),
        loss_sum=sums[-1],
        loss_sums=sums,
        evals=evals,
        best_eval=_best_until(kept_step, state.best_eval, evals),
        pace=state.pace.began(0.0),
        train_began_s=0.0,
        earlier_train_s=state.earlier_train_s + _trained_s(state),
        samples=tuple(item for item in state.samples if item.step <= kept_step),
        checkpoints=tuple(item for item in state.checkpoints if item.step <= kept_step),
        resumes=(*resumes, kept_step) if kept_step else resumes,
        stopped=None,
        failed=None,
        finished=None,
    )


def _trained_s(state: RunState) -> float:
    """How long the newest attempt trained. A last event may be written long after its worker was killed."""
    last = state.steps.last
    return max(0.0, last.time_s - state.train_began_s) if last and state.train_began_s else 0.0


def _best_until(step: int, best: events.Eval | None, evals: Series[events.Eval]) -> events.Eval | None:
    """The best evaluation up to `step`: `best` itself if it is not later, else the best of those left."""
    if best is None or best.step <= step:
        return best
    losses = {point.loss: point for point in reversed(evals.points()) if point.loss is not None}
    return losses[min(losses)] if losses else None


def _stage(state: RunState, event: events.Stage) -> RunState:
    return state._replace(stage=event)


def _resolved(state: RunState, event: events.Resolved) -> RunState:
    return state._replace(resolved=(*state.resolved, event))


def _model_loaded(state: RunState, event: events.ModelLoaded) -> RunState:
    return state._replace(model=event)


def _dataset_ready(state: RunState, event: events.DatasetReady) -> RunState:
    return state._replace(dataset=event)


def _training_planned(state: RunState, event: events.TrainingPlanned) -> RunState:
    return state._replace(plan=event, train_began_s=event.time_s, pace=state.pace.began(event.time_s))


def _eval(state: RunState, event: events.Eval) -> RunState:
    best = state.best_eval
    if event.loss is not None and (best is None or best.loss is None or event.loss < best.loss):
        best = event
    return state._replace(evals=state.evals.append(event), best_eval=best, pace=state.pace.evaluated(event.time_s))


def _sample(state: RunState, event: events.Sample) -> RunState:
    samples = (*state.samples, event)[-_KEPT_SAMPLES:]
    return state._replace(samples=samples, pace=state.pace.answered(event.time_s))


def _checkpoint(state: RunState, event: events.Checkpoint) -> RunState:
    return state._replace(
        checkpoints=(*state.checkpoints, event),
        loss_sums=(*state.loss_sums, state.loss_sum),
        pace=state.pace.saved(event.time_s),
    )


def _warning(state: RunState, event: events.Warned) -> RunState:
    """A resumed attempt repeats warnings of the previous one."""
    if any((item.code, item.message) == (event.code, event.message) for item in state.warnings):
        return state
    return state._replace(warnings=(*state.warnings, event)[-_KEPT_WARNINGS:])


def _acknowledged(state: RunState, event: events.ControlAcknowledged) -> RunState:
    return state._replace(acknowledged=(*state.acknowledged, event.id))


def _replanned(state: RunState, event: events.Replanned) -> RunState:
    """The worker replaces itself by a fresh one, which starts with the changed settings."""
    return state._replace(phase="replanning", replanned={**(state.replanned or {}), **event.changes})


def _extended(state: RunState, event: events.Extended) -> RunState:
    """The new length is known at once, although the worker plans it only after loading the model."""
    plan, steps, epochs = (state.plan, *map(event.changes.get, ("training.max_steps", "training.epochs")))
    if plan is not None:
        if steps is None and epochs is not None and plan.steps_per_epoch is not None:
            steps = math.ceil(epochs * plan.steps_per_epoch)
        plan = plan.model_copy(update={"total_steps": steps or plan.total_steps})
    return state._replace(extended={**(state.extended or {}), **event.changes}, plan=plan)


def _stopped(state: RunState, event: events.Stopped) -> RunState:
    return state._replace(phase="cancelled" if event.reason == "cancel" else "stopped", stopped=event, stage=None)


def _failed(state: RunState, event: events.Failed) -> RunState:
    peak_bytes = max(state.peak_bytes, event.peak_bytes)
    return state._replace(phase="failed", failed=event, stage=None, peak_bytes=peak_bytes)


def _finished(state: RunState, event: events.Finished) -> RunState:
    peak_bytes = max(state.peak_bytes, event.peak_bytes)
    return state._replace(phase="finished", finished=event, stage=None, peak_bytes=peak_bytes)


_FOLDS: dict[type, Any] = {
    events.Created: _created,
    events.Started: _started,
    events.Stage: _stage,
    events.Resolved: _resolved,
    events.ModelLoaded: _model_loaded,
    events.DatasetReady: _dataset_ready,
    events.TrainingPlanned: _training_planned,
    events.Eval: _eval,
    events.Sample: _sample,
    events.Checkpoint: _checkpoint,
    events.Warned: _warning,
    events.ControlAcknowledged: _acknowledged,
    events.Replanned: _replanned,
    events.Extended: _extended,
    events.Stopped: _stopped,
    events.Failed: _failed,
    events.Finished: _finished,
}
