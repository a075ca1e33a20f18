"""Colour themes: shipped ones, the user's own which win over them, and Textual's."""

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.css.constants import VALID_STYLE_FLAGS
from textual.theme import Theme

from qlora_tui import paths
from qlora_tui.config.toml_file import read_text
from qlora_tui.config.toml_lines import parse_toml
from qlora_tui.errors import QloraError

REQUIRED = ("loss", "eval", "vram")
"""Variables of our own that plots and bars are drawn in."""


def stand_ins(theme: Theme) -> dict[str, str]:
    """Default values of custom variables that other themes, such as Textual's, do not define."""
    return {
        "loss": theme.primary,
        "eval": theme.secondary or theme.primary,
        "vram": theme.success or theme.primary,
        "ansi-background": "ansi_black" if theme.dark else "ansi_white",
        "ansi-foreground": "ansi_white" if theme.dark else "ansi_black",
    }


def rich_style(value: str) -> Style:
    """The style that a variable such as "#aabbcc", "auto 60%" or "ansi_red 50%" means; a share becomes dim."""
    color, _, share = value.partition(" ")
    return Style(color=None if color == "auto" else Color.parse(color).rich_color, dim=bool(share) or color == "auto")


def read(path: Path) -> Theme:
    """The theme in a file; its name is the file's stem. Raises ValueError saying what is wrong."""
    try:
        values = parse_toml(read_text(path))
        theme = Theme(name=path.stem, **values)
        _theme_type().validate_json(json.dumps(vars(theme), default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, RecursionError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    except QloraError as error:
        raise ValueError(error.message) from error
    missing = [name for name in REQUIRED if name not in theme.variables]
    if missing:
        raise ValueError(f"{path.name}: variables without {', '.join(missing)}")
    try:
        _check(theme)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return theme


@cache
def _theme_type() -> TypeAdapter[Theme]:
    return TypeAdapter(Theme)


def _check(theme: Theme) -> None:
    """Raise ValueError for a colour or text style that is invalid in a style sheet."""
    for name in Theme.__dataclass_fields__:
        value = getattr(theme, name)
        if isinstance(value, str) and name != "name":
            _check_color(name, value)
    usual = replace(theme, variables={}).to_color_system().generate()
    for name, value in theme.variables.items():
        default = usual.get(name, "")
        if value and value == default:
            continue
        if name.endswith("style"):
            if not value or not set(value.split()) <= VALID_STYLE_FLAGS:
                raise ValueError(f"{name}: {value!r} is not a text style, such as bold or none")
        elif name in REQUIRED or " " not in default:
            _check_color(name, value)
        else:  # one that may be mixed with what is behind it
            _check_color(name, value.removeprefix("auto").partition(" ")[0] or "black")


def _check_color(name: str, value: str) -> None:
    try:
        Color.parse(value)
    except ColorParseError as error:
        raise ValueError(f"{name}: {error}") from error


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
