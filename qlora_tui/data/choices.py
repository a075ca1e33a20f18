"""The data one can choose from: the bundled set, the known sets, and files and folders on this machine."""

from dataclasses import dataclass
from pathlib import Path

from qlora_tui import paths
from qlora_tui.config.model import STARTER
from qlora_tui.data.files import has_data_suffix
from qlora_tui.data.registry import KNOWN, STARTER_SET, KnownSet
from qlora_tui.units import disk

_SHOWN_FILES = 200


@dataclass(frozen=True)
class DataChoice:
    source: str
    """What `data.source` is set to."""

    title: str
    rows: str
    """How many, in words; for a file its size."""

    license: str
    note: str = ""
    is_folder: bool = False


def known_choices() -> list[DataChoice]:
    """The bundled set and the known ones."""
    return [_known(STARTER, STARTER_SET), *(_known(name, known) for name, known in KNOWN.items())]


def _known(name: str, known: KnownSet) -> DataChoice:
    return DataChoice(name, known.title, known.rows, known.license, known.note)


def file_choices(text: str) -> list[DataChoice]:
    """Data files and folders at, in and beginning like the path `text`; empty: the current folder."""
    entries = [each for each in paths.beginning_like(text or ".") if not each.name.startswith(".")]
    found = [choice for entry in entries if (choice := _at(entry, folders=bool(text))) is not None]
    return found[:_SHOWN_FILES]


def _at(entry: Path, *, folders: bool) -> DataChoice | None:

    try:
        if entry.is_dir():
            return DataChoice(f"{entry}/", "folder", "", "", is_folder=True) if folders else None
        if entry.is_file() and has_data_suffix(entry.name):
            return DataChoice(str(entry), "file", disk(entry.stat().st_size), "")
    except OSError:
        pass
    return None
