"""Optimizer steps and tokens of a run, from what is known of its rows."""

import math
from dataclasses import dataclass

from qlora_tui.config.run import RunConfig
from qlora_tui.data.statistics import optimizer_steps
from qlora_tui.data.volume import Volume

_CHARACTERS_PER_TOKEN = 4
_TEMPLATE_TOKENS = 16
"""Of a chat template, for each row."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows as the trainer gets them, evaluation rows left out."""

    train: int
    tokens_per_row: float | None
    """On average, cut at the limit; None while no row was read."""

    eval: int
    exact: bool
    """Whether every row was tokenized; else the numbers are approximate."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run does from its start to its end."""

    steps: int
    micro_batches: int
    """Forward and backward passes of all steps."""

    tokens_per_micro_batch: float
    tokens: int
    """All that is trained through, padding left out."""

    eval_tokens: int
    """All that evaluations go through."""

    exact: bool
    longest_assumed: bool
    """Whether rows were taken to be as long as allowed, for want of better knowledge."""


def rows_of(config: RunConfig, volume: Volume | None) -> Rows | None:
    """Return the rows of a configuration by the volume of its main source; None when that is unknown."""
    if volume is None:
        return None
    data, limit = config.data, config.training.max_length_tokens
    cut = min(data.eval_rows, volume.rows) if data.eval_spec is None else 0
    train = round((volume.rows - cut) * (1 + sum(spec.weight for spec in data.mix)))
    evaluated = min(cut, data.max_eval_rows or cut)
    tokens = None
    if volume.characters_per_row is not None:
        tokens = min(limit, volume.characters_per_row / _CHARACTERS_PER_TOKEN + _TEMPLATE_TOKENS)
    return Rows(max(1, min(train, data.max_train_rows or train)), tokens, evaluated, False)


def work_of(config: RunConfig, rows: Rows | None) -> Work | None:
    """Return the work of a run; None when neither its rows nor its steps are known."""
    training = config.training
    if rows is None and training.max_steps is None:
        return None
    known = rows.tokens_per_row if rows is not None else None
    per_row = float(training.max_length_tokens) if known is None or training.packing else known
    per_micro_batch = training.micro_batch_size * per_row
    if rows is None:
        steps = training.max_steps or 0
    else:
        tokens_per_epoch = round(rows.train * (known or training.max_length_tokens))
        _, steps, _ = optimizer_steps(rows.train, tokens_per_epoch, training)
    micro_batches = steps * training.gradient_accumulation_steps
    if rows is not None and training.max_steps is None and not training.packing:
        # The last batch of an epoch may be smaller.
        micro_batches = min(micro_batches, math.ceil(rows.train * training.epochs / training.micro_batch_size))
    evaluations = steps // training.eval_every_steps if training.eval_every_steps else 1
    return Work(
        steps=steps,
        micro_batches=micro_batches,
        tokens_per_micro_batch=per_micro_batch,
        tokens=round(micro_batches * per_micro_batch),
        eval_tokens=round(evaluations * (rows.eval if rows is not None else 0) * per_row),
        exact=rows is not None and rows.exact,
        longest_assumed=known is None and not training.packing,
    )
