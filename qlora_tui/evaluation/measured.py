"""Evaluation results in one shape, whatever task they come from: metrics, and marks of each question to pair them by.

A result file has one object of numbers for each side, and `per_row` with what each question contributed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qlora_tui.evaluation import results
from qlora_tui.runs.store import RunFolder

SIDES = ("adapter", "base")

Marks = dict[str, tuple[float, float]]
"""By question: its mark and its weight in the mean (1, or the tokens of a loss)."""


@dataclass(frozen=True)
class Measured:
    """Result of one evaluation for one side of a run."""

    evaluation: str
    side: str
    metrics: dict[str, float]
    marks: dict[str, Marks]
    """By metric; empty if the file has no results per question."""


def measured(run: RunFolder) -> list[Measured]:
    """Return every result of a run, the adapter's before the base model's. Raises DataError naming a damaged file."""
    found = []
    for name, result in results.read_all(run).items():
        for side in SIDES:
            metrics = {**_numbers(result.get(side)), **_prefixed(result, f"{side}_")}
            if metrics:
                found.append(Measured(name, side, metrics, _marks(result, side)))
    return found


def _numbers(content: Any) -> dict[str, float]:
    """The plain numbers of an object; those of objects inside it under "outer.inner"."""
    found: dict[str, float] = {}
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[str(key)] = float(value)
            elif isinstance(value, dict):
                found.update({f"{key}.{inner}": number for inner, number in _numbers(value).items()})
    return found


def _prefixed(result: dict[str, Any], prefix: str) -> dict[str, float]:
    return {key.removeprefix(prefix): value for key, value in _numbers(result).items() if key.startswith(prefix)}


def _marks(result: dict[str, Any], side: str) -> dict[str, Marks]:
    rows = result.get("per_row", result.get("rows"))
    if isinstance(rows, dict):
        rows = [{side: row} for row in rows.get(side, ())]
    found: dict[str, Marks] = {}
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        for metric, mark, weight in _row_marks(row, side):
            found.setdefault(metric, {})[_key(row, number)] = (mark, weight)
    return found


def _key(row: dict[str, Any], number: int) -> str:
    """The question itself where the row has it, and its number."""
    return f"{number} {row.get('question_id', row.get('question', ''))}"


def _row_marks(row: Any, side: str) -> Iterator[tuple[str, float, float]]:
    """(metric, mark, weight) of one question."""
    said = row.get(side) if isinstance(row, dict) else None
    if isinstance(said, str) and "expected" in row:
        metric = "micro_accuracy" if "subject" in row else "exact_match"
        yield metric, float(said == row["expected"]), 1.0
    elif isinstance(said, dict) and "nats" in said:
        tokens = float(said.get("tokens") or 0)
        if tokens and said["nats"] is not None:
            yield "trained_loss", float(said["nats"]) / tokens, tokens
    else:
        for metric, value in _numbers(said).items():
            yield metric, value, 1.0
