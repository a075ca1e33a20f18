"""Loss and perplexity per token, over trained tokens and over all tokens."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from qlora_tui.config.data import DataSpec, SourceSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Consent
from qlora_tui.data.prepare import prepare
from qlora_tui.engine.evaluation.pair import Pair
from qlora_tui.engine.evaluation.partial import Keep, forgotten, interrupted_batch
from qlora_tui.engine.session import finite
from qlora_tui.errors import DataError
from qlora_tui.evaluation.tasks import LossTask

_IGNORED = -100
_LOGIT_ROWS = 1024
"""Positions whose logits are widened to float32 at once."""

_LARGEST_EXPONENT = 700
"""The exponential of this is close to the largest float."""

Nats = tuple[float | None, int]
"""Summed negative log-likelihood, None where it is not finite, and the tokens that it is of."""

Rows = Sequence[tuple[list[int], list[int]]]
"""input_ids and labels of each row; a label of -100 is not trained."""


def rows_of(config: RunConfig, tokenizer: Any, task: LossTask, consent: Consent = lambda download: False) -> Rows:
    """The run's held-out rows, or all rows of the task's dataset, rendered and masked as in training.

    Raises DataError when the run has no held-out rows.
    """
    if task.source is not None:
        config = config.model_copy(update={"data": _all_of(task.source, config.data)})
    prepared = prepare(config, tokenizer, consent=consent)
    rows = prepared.train if task.data is not None else prepared.eval
    if rows is None or len(rows) == 0:
        raise DataError(
            "the run has no held-out rows", hint="Name a dataset: --data FILE; or train with data.eval_rows."
        )
    rows = rows.select(range(min(len(rows), task.limit or len(rows))))
    return [(row["input_ids"], row["labels"]) for row in rows]


def _all_of(source: SourceSpec, trained: DataSpec) -> DataSpec:
    """Another dataset, rendered as the run's own."""
    kept = {"template", "system_prompt", "length_policy", "truncation_side", "source_max_tokens", "target_max_tokens"}
    return DataSpec(source=source.source, split=source.split, **trained.model_dump(include=kept))


def measure(
    pair: Pair, rows: Rows, task: LossTask, progress: Callable[[str, int, int], None], keep: Keep = forgotten
) -> dict[str, Any]:
    """Loss (mean negative log-likelihood in nats) and perplexity (its exponential) of each side, per token.

    None for a model whose weights have diverged.
    """
    found: dict[str, Any] = {"rows": len(rows)}
    per_row: dict[str, list[dict[str, float | None]]] = {}
    for side in pair.sides:
        with keep(side) as log, pair.side(side) as model:
            start, kept = interrupted_batch(log, task.batch_rows)
            measured = _row_sums(model, rows[start:], task.batch_rows, pair.tokenizer.pad_token_id)
            for trained, everything in islice(measured, kept, None):
                log.append({"trained": trained, "all": everything})
                progress(side, len(log.rows), len(rows))
            sums = list(log.rows)
        found[side] = {}
        for part in ("trained", "all"):
            found[side] |= _per_token(part, [one[part] for one in sums])
        per_row[side] = [{"nats": one["trained"][0], "tokens": one["trained"][1]} for one in sums]
    found["per_row"] = per_row
    return found


def _per_token(name: str, rows: Sequence[Nats]) -> dict[str, float | None]:
    """None where a number would not be finite, which JSON does not have."""
    nats, tokens = [row[0] for row in rows if row[0] is not None], sum(row[1] for row in rows)
    loss = sum(nats) / max(tokens, 1) if len(nats) == len(rows) else None
    return {
        f"{name}_loss": loss,
        f"{name}_perplexity": math.exp(loss) if loss is not None and loss < _LARGEST_EXPONENT else None,
        f"{name}_tokens": tokens,
    }


def _row_sums(model: Any, rows: Rows, batch_rows: int, pad_id: int) -> Iterator[tuple[Nats, Nats]]:
    """For each row: that of its trained tokens, and of all but the first."""
    for start in range(0, len(rows), batch_rows):
        batch = rows[start : start + batch_rows]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.full((len(batch), width), pad_id)
        mask = torch.zeros_like(ids)
        for number, (row, _) in enumerate(batch):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        device = model.device
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        for number, (row, labels) in enumerate(batch):
            nats = token_nats(logits[number, : len(row) - 1], ids[number, 1 : len(row)].to(device)).cpu()
            is_trained = torch.tensor(labels[1:]) != _IGNORED
            yield (
                (finite(float(nats[is_trained].sum())), int(is_trained.sum())),
                (finite(float(nats.sum())), len(row) - 1),
            )


def token_nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood [n] of each target [n] under its logits [n, vocabulary], in float64."""
    parts = []
    for start in range(0, len(targets), _LOGIT_ROWS):
        part = logits[start : start + _LOGIT_ROWS].float()
        chosen = part.gather(1, targets[start : start + _LOGIT_ROWS, None]).squeeze(1)
        parts.append((part.logsumexp(1) - chosen).double())
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
