"""The final event of a worker that cannot write to its run folder: a small file in the temporary folder."""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from qlora_tui import atomic
from qlora_tui.errors import StorageError
from qlora_tui.regular_files import read_bytes
from qlora_tui.runs.events import Failed
from qlora_tui.runs.store import RunFolder


def leave(run: RunFolder, attempt: int, event: Failed) -> None:
    """Store the last event of an attempt. Does nothing if this disk cannot be written either."""
    file = _file(run)
    with suppress(StorageError, OSError):
        atomic.make_folder(file.parent)
        if file.parent.stat().st_uid == os.getuid():
            atomic.write_json(file, {"attempt": attempt, "event": event.model_dump(mode="json")})


def find(run: RunFolder, attempt: int) -> Failed | None:
    """Return the last event of an attempt, if it was stored here by the same user."""
    file = _file(run)
    try:
        if file.parent.stat().st_uid != os.getuid():
            return None
        kept = json.loads(read_bytes(file))
        return Failed.model_validate(kept["event"]) if kept["attempt"] == attempt else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _file(run: RunFolder) -> Path:
    key = hashlib.blake2b(os.fsencode(run.path), digest_size=16).hexdigest()
    return Path(tempfile.gettempdir()) / f"qlora-tui-{os.getuid()}" / f"{key}.json"
