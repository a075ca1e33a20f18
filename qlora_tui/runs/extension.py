"""Train a run for more epochs or steps than configured: which settings may change, and the consequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qlora_tui.config.fields import value
from qlora_tui.config.overrides import edited, override_layer
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError, RunConflictError
from qlora_tui.runs.checkpoints import newest_complete
from qlora_tui.runs.schedule import learning_rate
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

LENGTHS = ("training.epochs", "training.max_steps")
"""The settings of a run that may be changed after its start."""

_SAMPLED_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Extension:
    """A run's new length."""

    settings: tuple[str, ...]
    """As `key=value`, for the worker."""

    total_steps: int | None
    """Optimizer steps of the whole run; None when the number of steps in an epoch is not known."""

    consequence: str
    """Effect on the learning rate, and whether the result equals an uninterrupted run."""


def current_config(run: RunFolder, state: RunState) -> RunConfig:
    """Return the frozen configuration with what replanning and extensions have changed since. Raises ConfigError."""
    changed = changed_settings(state)
    return edited(run.load_config(), [f"{key}={'none' if new is None else new}" for key, new in changed.items()])


def changed_settings(state: RunState) -> dict[str, Any]:
    """Return what replanning and extensions have changed, dotted key to value."""
    return {**(state.replanned or {}), **(state.extended or {})}


def changes(run: RunFolder, state: RunState, settings: Sequence[str]) -> dict[str, Any]:
    """Return the changed lengths by dotted key. Raises ConfigError for any other setting, naming it."""
    for text in settings:
        override_layer(text)
        key = text.partition("=")[0].strip()
        if key not in LENGTHS:
            raise ConfigError(
                f"{key} of {run.name} cannot be changed: resuming can change only {' and '.join(LENGTHS)}",
                hint=f"Train a new run with it: `qlora-tui train {run.config} --set {text}`.",
            )
    before = current_config(run, state)
    after = edited(before, settings)
    return {key: value(after, key) for key in LENGTHS if value(after, key) != value(before, key)}


def plan(run: RunFolder, state: RunState, settings: Sequence[str]) -> Extension:
    """Return what a resume with changed lengths would do.

    Raises ConfigError for a setting that cannot be changed or a length that is already trained,
    RunConflictError for a run that has nothing to continue from or has stopped early.
    """
    changed = changes(run, state, settings)
    before = current_config(run, state)
    after = edited(before, settings)
    if not changed:
        same = ", ".join(f"{key} = {value(before, key)}" for key in _named(settings))
        hint = "Give a larger value."
        if state.finished is None:
            hint = f"`qlora-tui resume {run.name}` continues it at this length."
        raise ConfigError(f"{run.name} already has {same}", hint=hint)
    if changed.keys() == {"training.epochs"} and after.training.max_steps is not None:
        raise ConfigError(
            f"training.max_steps = {after.training.max_steps} of {run.name} sets the length, not training.epochs",
            hint="Set training.max_steps, or add --set training.max_steps=none.",
        )
    _check_can_continue(run, state, before)
    total = _total_steps(state, before, after)
    if total is not None and total <= state.step_number:
        raise ConfigError(
            f"{run.name} has made {state.step_number:,} steps: {_words(changed)} means {total:,} in all",
            hint="Give a larger value.",
        )
    return Extension(tuple(settings), total, _consequence(state, before, after, total))


def _named(settings: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text.partition("=")[0].strip() for text in settings))


def _words(changed: dict[str, Any]) -> str:
    return " and ".join(f"{key} = {new}" for key, new in changed.items())


def _check_can_continue(run: RunFolder, state: RunState, config: RunConfig) -> None:
    total = state.plan.total_steps if state.plan else None
    patience = config.training.early_stopping_evals
    if state.finished is not None and patience and total is not None and state.finished.step < total:
        raise RunConflictError(
            f"{run.name} stopped early at step {state.finished.step:,}: {patience} evaluations without improvement",
            hint="A longer run would stop at the same step. Train a new run without training.early_stopping_evals.",
        )
    if state.finished is not None and newest_complete(run.checkpoints, by_content=False)[0] is None:
        raise RunConflictError(
            f"{run.name} has no complete checkpoint to continue from",
            hint=f"Train a new run: `qlora-tui train {run.config} --set ...`.",
        )


def _total_steps(state: RunState, before: RunConfig, after: RunConfig) -> int | None:
    if after.training.max_steps is not None:
        return after.training.max_steps
    if state.plan is None:
        return None
    per_epoch: float | None = state.plan.steps_per_epoch
    if per_epoch is None and before.training.max_steps is None:
        per_epoch = state.plan.total_steps / before.training.epochs
    return None if per_epoch is None else math.ceil(after.training.epochs * per_epoch)


def _consequence(state: RunState, before: RunConfig, after: RunConfig, total: int | None) -> str:
    spec, made = after.training, state.step_number
    planned = state.plan.total_steps if state.plan else None
    if spec.schedule == "constant" or not made:
        return "The result equals an uninterrupted run of this length: the learning rate does not depend on the length."
    if total is None or planned is None:
        return f"The {spec.schedule} schedule is recomputed for the new length, so the learning rate may jump."
    steps = {*range(min(made, _SAMPLED_STEPS)), *range(0, made, max(1, made // _SAMPLED_STEPS))}
    if all(learning_rate(before.training, step, planned) == learning_rate(spec, step, total) for step in steps):
        return f"The result equals an uninterrupted run of {total:,} steps: the learning rates are the same."
    last, coming = learning_rate(before.training, made - 1, planned), learning_rate(spec, made, total)
    return (
        f"The {spec.schedule} schedule is recomputed for {total:,} steps: the learning rate goes from {last:.3g} at "
        f"step {made:,} to {coming:.3g} at step {made + 1:,}. The result differs from an uninterrupted run of "
        f"{total:,} steps, which would have had other learning rates from the beginning."
    )
