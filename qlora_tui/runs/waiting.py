"""The runs waiting in the queue: a small file, changed only by `queue`."""

import json
from dataclasses import dataclass
from pathlib import Path

from qlora_tui import paths
from qlora_tui.regular_files import read_text


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting run."""

    name: str
    allow_download: bool = False
    """Whether the user agreed to a download whose size was shown."""


def waiting() -> list[Waiting]:
    """Return the waiting runs in starting order."""
    try:
        found = json.loads(read_text(file()))
        return [Waiting(str(item["name"]), bool(item.get("allow_download"))) for item in found]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def is_waiting(name: str) -> bool:
    """Return whether the run of this name waits in the queue."""
    return any(entry.name == name for entry in waiting())


def file() -> Path:
    """Return the path of the queue file."""
    return paths.data() / "queue.json"
