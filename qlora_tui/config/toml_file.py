"""TOML files of settings: read with the line of every key, written complete or sparse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlora_tui.config.layers import Layer
from qlora_tui.config.toml_lines import Location, line_of, lines_of_settings, parse_toml
from qlora_tui.errors import ConfigError, NotFoundError, StorageError
from qlora_tui.regular_files import open_to_read

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

LARGEST_FILE_BYTES = 256 * 1024


def load(path: Path) -> RunConfig:
    """The run that a file describes; what it leaves out has its default.

    Raises NotFoundError, StorageError, or ConfigError naming file, line, key, what was found and what is expected.
    """
    from qlora_tui.config.layers import build

    return build([read_layer(path)])


def read_layer(path: Path) -> Layer:
    """The settings written in a file, its relative paths made absolute from its folder.

    Raises as `load` for a missing, unreadable or malformed file.
    """
    from qlora_tui.config.file_paths import with_absolute_paths

    text = read_text(path)
    try:
        values = parse_toml(text)
    except (ValueError, RecursionError) as error:  # also numbers and brackets beyond the limits of the interpreter
        raise _syntax_error(path, text, str(error)) from error
    lines: dict[Location, int] = {}

    def where(place: Location) -> str:
        if not lines:
            lines.update(lines_of_settings(text))
        return f"{path}:{line_of(lines, place)}"

    return Layer(with_absolute_paths(values, path), where)


def read_text(path: Path) -> str:
    """A settings file's text. Raises NotFoundError, StorageError or ConfigError (not a small UTF-8 text file)."""
    try:
        with open_to_read(path) as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}", hint="Check the path, or give the name of a preset.") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{path}: larger than {LARGEST_FILE_BYTES // 1024} KiB, so not a configuration",
            hint="Give a TOML file with [model], [data], [training] and so on; data files belong in data.source.",
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text", hint="Save the file as UTF-8.") from error


def _syntax_error(path: Path, text: str, message: str) -> ConfigError:
    """What the parser says, with the line and column that it names; the end of the file is named by its line."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    problem, line, column = found.groups() if found else (message, *_end(text))
    hint = "A setting is written as key = value below its [table]."
    if "Invalid value" in message:
        hint = 'Text needs quotes, as in kind = "nf4"; booleans are true and false.'
    return ConfigError(f"{path}:{line}:{column}: not valid TOML: {problem}", hint=hint)


def _end(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def to_toml(config: RunConfig, *, sparse: bool = False, comment: str = "") -> str:
    """`config` as TOML that loads back equal: every setting, or only those that differ from the defaults (`sparse`).

    Empty (None) settings are left out, as TOML has no word for them, and so are defaults that nobody set and that do
    nothing beside the others, so that reading the file back warns about nothing new. `comment` may have several lines.
    """
    import tomlkit

    from qlora_tui.config.contradictions import idle_defaults

    values = config.model_dump(exclude_none=True, exclude_defaults=sparse)
    for key in idle_defaults(config):
        table, _, name = key.partition(".")
        values.get(table, {}).pop(name, None)
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    body = tomlkit.dumps(_ordered(values))
    return "\n".join(lines) + "\n\n" * bool(lines) + body


def _ordered(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values first, then tables, then lists of tables: the order in which TOML can say them. Empty ones go."""
    plain: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            if inner := _ordered(value):
                nested[name] = inner
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lists[name] = [_ordered(row) for row in value]
        else:
            plain[name] = value
    return plain | nested | lists
