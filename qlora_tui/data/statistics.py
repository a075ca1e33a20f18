"""Numbers about tokenized rows for people: histogram, shares, steps and tokens per epoch."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from qlora_tui.config.training import TrainingSpec
from qlora_tui.data.tally import Tally, percentiles

_FAR = 2
"""A longest row so many times as long as 99 of 100 rows says nothing about how long rows are."""


@dataclass(frozen=True, slots=True)
class Bin:
    from_tokens: int
    to_tokens: int
    """Included."""
    rows: int


def histogram(lengths: Counter[int], bins: int = 12) -> list[Bin]:
    """Rows by length in about `bins` equally wide bins from the shortest row on. Empty without rows.

    Bins begin at multiples of their width, a round number. Where a hundredth of the rows is far longer than the rest,
    the last bin is as wide as it takes to hold them: else all others would stand in one bar.
    """
    if not lengths:
        return []
    shortest, longest = min(lengths), max(lengths)
    usual = percentiles(lengths)["p99"]
    last = usual if longest > _FAR * usual else longest
    width = _round_up(math.ceil((last - shortest + 1) / bins))
    counts = Counter[int]()
    for length, rows in lengths.items():
        counts[min(length, last + width) // width] += rows
    regular = range(shortest // width, last // width + 1)
    made = [Bin(at * width, (at + 1) * width - 1, counts[at]) for at in regular]
    if last < longest:
        made.append(Bin(regular.stop * width, longest, counts[regular.stop]))
    return made


def _round_up(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= width:
                return step * scale
        scale *= 10


@dataclass(frozen=True, slots=True)
class Epochs:
    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    trained_tokens_per_epoch: int
    packed_rows: int | None
    """About how many packed sequences the rows fill; None when rows are not packed."""


def epochs(tally: Tally, training: TrainingSpec) -> Epochs:
    """Optimizer steps as the trainer counts them. With packing the number of sequences is an estimate: the tokens over
    the length of a sequence, which best-fit packing comes within a few percent of."""
    steps, total, packed = optimizer_steps(tally.kept_rows, tally.tokens, training)
    return Epochs(steps, total, tally.tokens, tally.trained_tokens, packed)


def optimizer_steps(rows: int, tokens: int, training: TrainingSpec) -> tuple[int, int, int | None]:
    """Steps of an epoch, of the whole run, and packed sequences (None: rows are not packed) of so many rows."""
    packed = None
    if training.packing and rows:
        packed = max(1, math.ceil(tokens / training.max_length_tokens))
        rows = packed
    batches = math.ceil(rows / training.micro_batch_size)
    steps = math.ceil(batches / training.gradient_accumulation_steps)
    return steps, training.max_steps or math.ceil(steps * training.epochs), packed


def numbers(tally: Tally, training: TrainingSpec) -> dict[str, Any]:
    """JSON-able statistics of tokenized rows."""
    rows = tally.rows or 1
    longer = sum(count for length, count in tally.full_lengths.items() if length > training.max_length_tokens)
    return {
        "rows": tally.rows,
        "train_rows": tally.kept_rows,
        "tokens": tally.tokens,
        "trained_tokens": tally.trained_tokens,
        "trained_share": tally.trained_tokens / tally.tokens if tally.tokens else 0.0,
        "truncated_share": tally.truncated_rows / rows,
        "longer_share": longer / rows,
        "percentiles": percentiles(tally.full_lengths),
        "histogram": [asdict(one) for one in histogram(tally.full_lengths)],
        "longest_tokens": tally.longest_tokens,
        "longest_origin": tally.longest_origin,
        "max_length_tokens": training.max_length_tokens,
        "epochs": asdict(epochs(tally, training)),
    }
