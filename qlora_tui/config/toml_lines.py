"""In which line of a TOML text each setting is written. The TOML parsers at hand do not tell.

A scanner of valid TOML: strings and comments are blanked first, so that what is left of a line is a table header, a
`key = value`, or the rest of a value whose brackets are still open.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

Location = tuple[str | int, ...]
"""Path to a value in nested tables: names, and indexes into lists."""

_STRINGS_AND_COMMENTS = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*''',
    re.DOTALL,
)
_KEY = r"""[\w.\-\s]*(?:(?:"(?:\\.|[^"\\])*"|'[^']*')[\w.\-\s]*)*"""
_MOST_KEY_PARTS = 32
_LONG_KEY = re.compile(
    rf"""(?<![\w.\-"'])(?:(?:[\w-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')[ \t]*\.[ \t]*){{{_MOST_KEY_PARTS}}}"""
)
_HEADER = re.compile(rf"\s*(\[\[?)({_KEY})\]")
_SETTING = re.compile(rf"\s*({_KEY})=")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text. Raises ValueError or RecursionError as `tomllib.loads`.

    Keys of many parts are refused first: the parser's time and memory grow with the square of their number.
    """
    bare = "\n".join(_blanked(text, keep_short=True))
    if long_key := _LONG_KEY.search(bare):
        line = bare.count("\n", 0, long_key.start()) + 1
        raise ValueError(f"A key of more than {_MOST_KEY_PARTS} parts (at line {line}, column 1)")
    return tomllib.loads(text)


def lines_of_settings(text: str) -> dict[Location, int]:
    """Line (from 1) of every table and every `key = value` of a valid TOML text.

    What is inside a value, such as an inline table or a list, has the line of its setting.
    """
    found: dict[Location, int] = {}
    rows: dict[Location, int] = {}
    table: Location = ()
    open_brackets = 0
    bare_lines = _blanked(text, keep_short=False)
    for number, (line, bare) in enumerate(zip(_blanked(text, keep_short=True), bare_lines, strict=True), start=1):
        if open_brackets == 0 and (header := _HEADER.match(line)):
            *outer, name = _names(header[2])
            table = (*_with_rows(outer, rows), name)
            if header[1] == "[[":
                rows[table] = rows.get(table, 0) + 1
                table = (*table, rows[table] - 1)
            place: Location = table
        elif open_brackets == 0 and (setting := _SETTING.match(line)):
            place = (*table, *_names(setting[1]))
            open_brackets = _balance(bare)
        else:
            open_brackets += _balance(bare)
            continue
        for length in range(1, len(place) + 1):
            found.setdefault(place[:length], number)
    return found


def line_of(found: Mapping[Location, int], place: Location) -> int:
    """The line of the setting at `place`, else that of the nearest table around it, else 1."""
    while place and place not in found:
        place = place[:-1]
    return found.get(place, 1)


def _blanked(text: str, *, keep_short: bool) -> list[str]:
    """The lines without comments and strings; strings of one line, which may be keys, are kept on demand."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        short = found[0] != "#" and not found.startswith(('"""', "'''"))
        return found if short and keep_short else "\n" * found.count("\n")

    return _STRINGS_AND_COMMENTS.sub(blank, text).split("\n")


def _balance(line: str) -> int:
    return line.count("[") + line.count("{") - line.count("]") - line.count("}")


def _names(key: str) -> Location:
    """The parts of a dotted key, as the TOML parser reads them."""
    names: list[str] = []
    value: Any = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        names.append(name)
    return tuple(names)


def _with_rows(names: Sequence[str | int], rows: Mapping[Location, int]) -> Location:
    """A header's names with the index of the present row after each list of tables."""
    place: Location = ()
    for name in names:
        place = (*place, name)
        if place in rows:
            place = (*place, rows[place] - 1)
    return place
