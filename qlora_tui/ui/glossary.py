"""Every term on screen in plain words, and the help of a setting with the terms that belong to it."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qlora_tui.config.fields import fields


@dataclass(frozen=True)
class Entry:
    """One term."""

    term: str
    text: str
    also: tuple[str, ...] = ()
    """Other spellings under which it is found in a text."""
    keys: tuple[str, ...] = ()
    """Dotted keys of the settings it belongs to."""


@cache
def entries() -> tuple[Entry, ...]:
    """All entries by term."""
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    found = (
        Entry(term, table["text"], tuple(table.get("also", ())), tuple(table.get("keys", ())))
        for term, table in tables.items()
    )
    return tuple(sorted(found, key=lambda entry: entry.term.lower()))


def of_setting(key: str) -> tuple[Entry, ...]:
    """The terms that belong to the setting with this dotted key."""
    return tuple(entry for entry in entries() if key in entry.keys)


def in_text(text: str) -> tuple[Entry, ...]:
    """The terms that a text uses, in the order of their first use."""
    found = ((entry, _pattern(entry).search(text)) for entry in entries())
    places = {entry: match.start() for entry, match in found if match}
    return tuple(sorted(places, key=lambda entry: places[entry]))


@cache
def _pattern(entry: Entry) -> re.Pattern[str]:
    words = "|".join(re.escape(word) for word in (entry.term, *entry.also))
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)


def terms_of(key: str) -> tuple[Entry, ...]:
    """The terms that belong to a setting, then those that its help uses."""
    return tuple(dict.fromkeys((*of_setting(key), *in_text(fields()[key].help))))


def markdown(found: tuple[Entry, ...]) -> str:
    """Entries as Markdown for a help panel."""
    return "\n\n".join(f"**{entry.term}** {entry.text}" for entry in found)


def help_of(key: str) -> str:
    """What F1 shows at the field of a setting, as Markdown."""
    field = fields()[key]
    default = f"Default: `{field.default}`" if field.default not in (None, "", []) else "Default: empty"
    return "\n\n".join(part for part in (f"### {key}", field.help, default, markdown(terms_of(key))) if part)
