"""The few small messages a person sends to a running worker, and reading them."""

import json
import os
import uuid
from pathlib import Path
from typing import Literal, NamedTuple

from qlora_tui.atomic import storage_errors
from qlora_tui.regular_files import descriptor, open_to_read

Action = Literal["save_now", "stop_and_save", "cancel"]
ACTIONS: tuple[Action, ...] = ("save_now", "stop_and_save", "cancel")


_MOST_BYTES = 1 << 20
"""Read size; longer data without a line break is not a message."""


class Control(NamedTuple):
    id: str
    action: Action


def send(path: Path, action: Action) -> str:
    """Append a message and return its id, which the worker's acknowledgement repeats."""
    message_id = uuid.uuid4().hex[:12]
    line = json.dumps({"id": message_id, "action": action}).encode() + b"\n"
    with storage_errors(path):
        handle = descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
    return message_id


def end(path: Path) -> int:
    """Return the offset after the last message, in bytes."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class ControlReader:
    """Reads the messages after `offset`; older ones were sent to an earlier worker."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self._offset = offset

    @property
    def offset(self) -> int:
        """Offset of the next message, in bytes."""
        return self._offset

    def read(self) -> list[Control]:
        """New complete messages. Lines that are no message, and a file that cannot be read, are passed over."""
        try:
            with open_to_read(self.path) as file:
                self._offset = min(self._offset, os.fstat(file.fileno()).st_size)
                file.seek(self._offset)
                text = file.read(_MOST_BYTES)
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(text) if len(text) == _MOST_BYTES and not whole else len(whole)
        return [message for line in whole.splitlines() if (message := _parse(line)) is not None]


def _parse(line: bytes) -> Control | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(message, dict) and message.get("action") in ACTIONS and isinstance(message.get("id"), str):
        return Control(message["id"], message["action"])
    return None
