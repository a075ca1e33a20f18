"""Packed rows share a sequence but must not see each other: whether a model keeps them apart, found by trying it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.nn import Linear8bitLt

_ROW_TOKENS = 8
_TOLERANCE = 1e-3
"""Largest difference of logits, as a share of their spread. What leaks from another row is larger, rounding smaller."""

LEAKS = (
    "this model's attention does not keep packed rows apart: a row would see the ones before it. Training continues"
    " without training.packing, so it takes more steps"
)


def keeps_rows_apart(trainer: Any) -> bool:
    """Whether a packed row gets the same logits whatever row stands before it. Draws no random number of the training.

    `trainer`: one made for packing; its collator builds the sequence as in training.
    """
    # In evaluation mode bitsandbytes may repack and round 4-bit weights for good; training never is in it.
    trainer.model.train()
    vocabulary = trainer.model.get_input_embeddings().weight.shape[0]
    row = [token % vocabulary for token in range(3, 3 + _ROW_TOKENS)]
    before = [[token % vocabulary for token in range(start, start + _ROW_TOKENS)] for start in (20, 50)]
    try:
        with _each_row_quantized_alone(trainer.model):
            first, second = (_logits_after(trainer, others, row) for others in before)
    except TypeError:  # The model takes no position ids, so nothing tells it where a row starts.
        return False
    return bool((first - second).abs().max() <= _TOLERANCE * first.std())


@contextmanager
def _each_row_quantized_alone(model: torch.nn.Module) -> Iterator[None]:
    """Within the block LLM.int8 keeps no column in 16 bits.

    It does so for all rows when one has a large value there (arXiv 2208.07339, section 3.2), so what stands before a
    row changes how it is rounded. That is no leak, but it may exceed the tolerance.
    """
    states = [layer.state for layer in model.modules() if isinstance(layer, Linear8bitLt)]
    thresholds = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold


def _logits_after(trainer: Any, before: list[int], row: list[int]) -> torch.Tensor:
    """Logits of `row` packed behind `before`, float32, (tokens of row, vocabulary)."""
    ids = before + row
    batch = trainer.data_collator([{"input_ids": ids, "labels": ids, "seq_lengths": [len(before), len(row)]}])
    del batch["labels"]
    batch = {
        name: value.to(trainer.model.device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    # The same seed for each try: dropout then drops the same places and cannot be taken for a leak.
    with torch.random.fork_rng(), torch.no_grad(), trainer.compute_loss_context_manager():
        torch.manual_seed(0)
        logits: torch.Tensor = trainer.model(**batch, use_cache=False).logits
    return logits[0, len(before) :].float()
