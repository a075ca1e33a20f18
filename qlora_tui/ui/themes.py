"""Colour themes: shipped ones, the user's own which win over them, and Textual's."""

import tomllib
from collections.abc import Iterable
from pathlib import Path

from textual.color import Color, ColorParseError
from textual.theme import Theme

from qlora_tui import paths

REQUIRED = ("loss", "eval", "vram")
"""Variables of our own that plots and bars are drawn in."""


def stand_ins(theme: Theme) -> dict[str, str]:
    """Values of our own variables for a theme that has none of them, as Textual's."""
    return {
        "loss": theme.primary,
        "eval": theme.secondary or theme.primary,
        "vram": theme.success or theme.primary,
    }


def read(path: Path) -> Theme:
    """The theme in a file; its name is the file's stem. Raises ValueError saying what is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        theme = Theme(name=path.stem, **values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    missing = [name for name in REQUIRED if name not in theme.variables]
    if missing:
        raise ValueError(f"{path.name}: variables without {', '.join(missing)}")
    for key, value in (*values.items(), *theme.variables.items()):
        if isinstance(value, str) and key not in ("name", "text-selected"):
            _check_color(path, key, value)
    return theme


def _check_color(path: Path, key: str, value: str) -> None:
    if value.startswith("ansi_") or value.split()[0] in ("auto", "bold", "none", "reverse", "underline"):
        return
    try:
        Color.parse(value.split()[0])
    except ColorParseError as error:
        raise ValueError(f"{path.name}: {key}: {error}") from error


def load_all() -> tuple[list[Theme], list[str]]:
    """Every theme that can be used, a user's own in place of a shipped one, and what is wrong with the others."""
    themes: dict[str, Theme] = {}
    problems: list[str] = []
    for path in _files():
        try:
            themes[path.stem] = read(path)
        except ValueError as error:
            problems.append(str(error))
    return list(themes.values()), problems


def _files() -> Iterable[Path]:
    for folder in (paths.shipped("themes"), paths.user_themes()):
        yield from sorted(folder.glob("*.toml"))


def stamp() -> tuple[tuple[str, int], ...]:
    """Changes whenever a theme of the user's is added, changed or removed."""
    found = []
    for path in sorted(paths.user_themes().glob("*.toml")):
        try:
            found.append((path.name, path.stat().st_mtime_ns))
        except OSError:
            continue
    return tuple(found)
