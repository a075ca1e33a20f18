"""How many rows are taken at a time: bounded in number and in text, so that memory is bounded whatever the rows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_BATCH_CHARACTERS = 32 << 20
_PART_CHARACTERS = 1 << 20
"""Tokens take a hundred times the memory of the text while the tokenizer has them."""


def batches(
    rows: Iterable[dict[str, Any]], *, most_rows: int = 2000, most_characters: int = _BATCH_CHARACTERS
) -> Iterator[list[dict[str, Any]]]:
    """Normal rows in lists. One row alone may be longer than the limit."""
    batch: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += characters_of(row["messages"], row["text"])
        if len(batch) == most_rows or characters > most_characters:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def parts(batch: dict[str, list[Any]]) -> Iterator[dict[str, list[Any]]]:
    """A batch of columns messages, text, tools and origin in pieces that can be tokenized at once."""
    rows = len(batch["origin"])
    columns = {name: batch.get(name) or [None] * rows for name in ("messages", "text", "tools", "origin")}
    start = characters = 0
    for at, (messages, text) in enumerate(zip(columns["messages"], columns["text"], strict=True)):
        size = characters_of(messages, text)
        if at > start and characters + size > _PART_CHARACTERS:
            yield {name: column[start:at] for name, column in columns.items()}
            start, characters = at, 0
        characters += size
    yield {name: column[start:] for name, column in columns.items()}


def rows_at_a_time(dataset: Any, most_rows: int = 1000, most_bytes: int = _BATCH_CHARACTERS) -> int:
    """How many rows of a `datasets.Dataset` to take, judged by their mean size."""
    table = dataset.data
    mean_bytes = table.nbytes / max(1, table.num_rows)
    return max(1, min(most_rows, int(most_bytes / max(1.0, mean_bytes))))


def characters_of(messages: Iterable[Mapping[str, Any]] | None, text: str | None) -> int:
    """How much text a normal row holds."""
    return sum(len(turn["content"] or "") for turn in messages or ()) + len(text or "")
