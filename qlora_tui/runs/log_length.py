"""The number of lines that a run's log had when a worker ended, so that a truncated log is detected."""

from contextlib import suppress

from qlora_tui.runs import checksums
from qlora_tui.runs.store import RunFolder

_KEY = "log_lines"


def store(run: RunFolder, lines: int) -> None:
    """Store the length of the log in plan.json, unless plan.json is missing or damaged. Raises StorageError."""
    with suppress(OSError, ValueError):
        plan = checksums.read_json(run.plan)
        if plan.get(_KEY) != lines:
            checksums.write_json(run.plan, {**plan, _KEY: lines})


def truncated_lines(run: RunFolder, last_line: int) -> int:
    """Return how many lines at the end of the log are missing. `last_line` is the number of the last intact line."""
    with suppress(OSError, ValueError):
        lines = checksums.read_json(run.plan).get(_KEY)
        if isinstance(lines, int):
            return max(0, lines - last_line)
    return 0
