"""Results of single rows on disk while a measurement lasts, so that an interrupted one continues where it stopped.

They lie in RUN/eval/partial/NAME.SIDE.IDENTITY.jsonl, the identity being that of everything the results depend on, and
are removed when the whole result has been written.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qlora_tui.evaluation import row_log
from qlora_tui.evaluation.predictions import Side
from qlora_tui.evaluation.tasks import Task
from qlora_tui.runs.store import RunFolder


class Log(Protocol):
    """Results in the order of the rows: those from before, and those that are added."""

    @property
    def rows(self) -> Sequence[dict[str, Any]]: ...

    def append(self, row: dict[str, Any]) -> None: ...


@dataclass
class _Memory:
    rows: list[dict[str, Any]] = field(default_factory=list)

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


Keep = Callable[[Side], AbstractContextManager[Log]]
"""Opens the log of a side."""


def forgotten(side: Side) -> AbstractContextManager[Log]:
    """A log that ends with the process."""
    return nullcontext(_Memory())


def on_disk(run: RunFolder, task: Task, rows: Sequence[Any]) -> Keep:
    """Logs of this task on these rows with this adapter; results of other ones are not taken for its own."""
    asked = task.model_dump(mode="json", exclude={"name", "sides", "batch_rows"})
    identity = _digest([asked, _weights(run, task), [repr(row) for row in rows]])
    return lambda side: row_log.opened(_folder(run) / f"{task.name}.{side}.{identity}.jsonl")


def interrupted_batch(log: Log, batch_rows: int) -> tuple[int, int]:
    """Give the first row of the batch to continue with, and how many of its results are in the log.

    The batch is measured again in full: in a batch of other rows, its results would differ in the last bits.
    """
    kept = len(log.rows) % batch_rows
    return len(log.rows) - kept, kept


def weights_identity(run: RunFolder, task: Task) -> str:
    """The same for as long as the adapter that the task measures is the same files."""
    return _digest(_weights(run, task))


def _weights(run: RunFolder, task: Task) -> list[tuple[str, int, int]]:
    folder = run.adapter if task.checkpoint is None else run.checkpoints / f"checkpoint-{task.checkpoint}"
    states = [(path.name, path.stat()) for path in sorted(folder.glob("*"))]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "replace")).hexdigest()[:16]


def remove(run: RunFolder, name: str) -> None:
    """Forget the single results of a measurement whose result has been written."""
    for side in ("base", "adapter"):
        for path in _folder(run).glob(f"{name}.{side}.*.jsonl"):
            path.unlink(missing_ok=True)


def _folder(run: RunFolder) -> Path:
    return run.path / "eval" / "partial"
