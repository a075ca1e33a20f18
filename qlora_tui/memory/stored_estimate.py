"""The estimate of a run as stored in plan.json and shown on screens. Does not import the estimator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BEFORE_START = "estimate"
"""Key in plan.json of the estimate made before the run started: the one that every screen and command shows."""

OF_ROWS = "estimate_of_rows"
"""Key in plan.json of the worker's estimate, made once the rows were tokenized: the one the estimator is judged by."""


@dataclass(frozen=True, slots=True)
class Longest:
    """Longest rows of the data in tokens, after truncation, if they were counted."""

    train_tokens: int
    eval_tokens: int = 0
    """0: no evaluation rows, or as long as those of training."""


@dataclass(frozen=True, slots=True)
class StoredEstimate:
    """The estimate of a run as stored in plan.json."""

    full_bytes: int
    """Peak memory without paging: the number that is shown."""

    comparable_bytes: int
    """The part that is comparable with the measured peak: on a GPU what PyTorch allocates, else all of it."""

    kind: str
    """"cuda" or "cpu"."""

    covers: str
    """Short description of what the estimate covers."""

    @classmethod
    def of(cls, plan: Mapping[str, Any], key: str = BEFORE_START) -> "StoredEstimate | None":
        """Read it from plan.json; None when it is missing or damaged."""
        found = plan.get(key)
        if not isinstance(found, Mapping):
            return None
        peak, need, paged = (_size(found.get(name)) for name in ("peak_bytes", "need_bytes", "paged_bytes"))
        full = (need + paged) or peak
        if not full:
            return None
        kind = str(found.get("kind", ""))
        return cls(full, peak or full, kind, _covers_entry(found, kind))


def _size(found: object) -> int:
    return found if isinstance(found, int) and found > 0 else 0


def covers(rows: int, row_tokens: int, kind: str, *, counted: bool) -> str:
    """Describe what an estimate covers: the longest batch, whether its rows were counted, and which memory."""
    batch = f"{rows:,} row{'s' * (rows != 1)} of {row_tokens:,} tokens"
    source = "the longest in the data" if counted else "the longest allowed"
    memory = "the CUDA context and the allocator included" if kind == "cuda" else "all memory of the worker"
    return f"{batch} ({source}), {memory}"


def _covers_entry(entry: Mapping[str, Any], kind: str) -> str:
    rows, tokens = _size(entry.get("rows")), _size(entry.get("row_tokens"))
    return covers(rows, tokens, kind, counted=bool(entry.get("longest_tokens"))) if rows and tokens else ""


def longest_of(plan: Mapping[str, Any]) -> Longest | None:
    """The longest rows that the estimate before the start was made for; None when they were not counted."""
    found = plan.get(BEFORE_START)
    if not isinstance(found, Mapping) or not (train := _size(found.get("longest_tokens"))):
        return None
    return Longest(train, _size(found.get("longest_eval_tokens")))
