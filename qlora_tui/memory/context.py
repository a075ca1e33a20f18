"""What the CUDA context took when `--probe` measured it, by the name of the card, for later estimates here."""

import json
from pathlib import Path

from qlora_tui import atomic, paths
from qlora_tui.regular_files import read_text


def measured_bytes(card: str) -> int | None:
    """The context on cards of that name, None when it was never measured here."""
    found = _known().get(card)
    return found if isinstance(found, int) and found > 0 else None


def remember(card: str, size_bytes: int) -> None:
    """Keep a measurement. Raises StorageError."""
    atomic.make_folder(_file().parent)
    atomic.write_json(_file(), {**_known(), card: size_bytes})


def _known() -> dict[str, object]:
    try:
        found = json.loads(read_text(_file()))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _file() -> Path:
    return paths.data() / "cuda-context.json"
