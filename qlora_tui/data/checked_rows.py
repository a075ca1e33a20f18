"""Texts of checked rows, as `data check` and the workbench show them.

A checked row is the JSON form of `engine.row_check.RowCheck`. Its texts are foreign.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

CheckedRow = Mapping[str, Any]
HINT = "Fix the rows, or choose another template with data.template."


def as_read(row: CheckedRow) -> str:
    """Return the turns of a row, one per line, or its finished text."""
    return "\n".join(f"{turn['role']}: {_content(turn)}" for turn in row["turns"]) or (row["text"] or "")


def _content(turn: Mapping[str, Any]) -> str:
    calls = [call.get("function", call).get("name", "") for call in turn.get("tool_calls") or ()]
    parts = [turn.get("reasoning_content") and f"(reasoning) {turn['reasoning_content']}", turn["content"]]
    parts += [f"(call of {name})" for name in calls]
    if turn.get("untrained"):
        parts.append("(not trained)")
    return " ".join(part for part in parts if part)


def result(row: CheckedRow) -> str:
    """Return the status of a row and how many of its tokens are trained."""
    return f"{row['status']}, {row['trained_tokens']:,} of {row['tokens']:,} tokens trained"


def counts(rows: Sequence[CheckedRow]) -> str:
    """Return how many rows pass, and how many have each other status."""
    failed = Counter(str(row["status"]) for row in rows if not row["passes"])
    parts = [f"{sum(bool(row['passes']) for row in rows):,} of {len(rows):,} rows pass"]
    return ", ".join([*parts, *(f"{count:,} {status}" for status, count in failed.most_common())])


def failure(rows: Sequence[CheckedRow]) -> str:
    """Return how many rows fail and why the first does; empty if none fails."""
    failed = [row for row in rows if not row["passes"]]
    if not failed:
        return ""
    first = failed[0]
    reason = f"{first['status']}, {first['problem']}" if first["problem"] else first["status"]
    return f"{len(failed)} of {len(rows)} rows fail; the first: {first['origin']}: {reason}"
