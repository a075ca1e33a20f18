"""Which runs wait in the queue: a small file, read by whoever shows a run, changed only by `queue`."""

import json
from dataclasses import dataclass
from pathlib import Path

from qlora_tui import paths
from qlora_tui.regular_files import read_text


@dataclass(frozen=True, slots=True)
class Waiting:
    """One run that waits."""

    name: str
    allow_download: bool = False
    """Whether a person agreed to a download whose size was shown."""


def waiting() -> list[Waiting]:
    """Return the runs that wait, the next one first."""
    try:
        found = json.loads(read_text(file()))
        return [Waiting(str(item["name"]), bool(item.get("allow_download"))) for item in found]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def is_waiting(name: str) -> bool:
    """Return whether the run of this name waits in the queue."""
    return any(entry.name == name for entry in waiting())


def file() -> Path:
    """Return where the queue is kept."""
    return paths.data() / "queue.json"
