"""The learning rate over the steps of a run, as transformers computes it, without torch."""

import math

from qlora_tui.config.training import TrainingSpec

MIN_LR_RATIO = 0.1
"""Final learning rate of "cosine_with_min_lr", as a fraction of the peak."""

_UNWARMED_TIMESCALE = 10_000
"""Timescale of "inverse_sqrt" without warmup."""


def learning_rate(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """Return the learning rate of a step, counted from 0, in a run of `total_steps`."""
    return spec.learning_rate * _factor(spec, step, total_steps)


def warmup_steps(spec: TrainingSpec, total_steps: int) -> int:
    """Return the number of steps in which the learning rate rises."""
    return spec.warmup_steps if spec.warmup_steps is not None else math.ceil(spec.warmup_ratio * total_steps)


def _factor(spec: TrainingSpec, step: int, total_steps: int) -> float:
    if spec.schedule == "constant":
        return 1.0
    warmup = warmup_steps(spec, total_steps)
    if step < warmup:
        return step / warmup
    if spec.schedule == "constant_with_warmup":
        return 1.0
    if spec.schedule == "inverse_sqrt":
        timescale = warmup or _UNWARMED_TIMESCALE
        return 1 / math.sqrt((step + timescale - warmup) / timescale)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if spec.schedule == "linear":
        return max(0.0, 1 - progress)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    lowest = MIN_LR_RATIO if spec.schedule == "cosine_with_min_lr" else 0.0
    return max(0.0, cosine * (1 - lowest) + lowest)
