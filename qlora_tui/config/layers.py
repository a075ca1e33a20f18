"""Sparse layers of settings (a preset, a file, `--set`), each checked by itself, merged in order into one RunConfig.

A layer knows where each of its values was written, so that a mistake is reported with file, line and key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from qlora_tui.config.source_settings import without_other_source
from qlora_tui.config.toml_lines import Location
from qlora_tui.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from qlora_tui.config.run import RunConfig

_UNKNOWN = "extra_forbidden"
_SHOWN_PROBLEMS = 8
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Layer:
    """Settings as nested tables; `where` says of a path in which line of which file it was written."""

    values: Mapping[str, Any]
    where: Callable[[Location], str]


def build(layers: Sequence[Layer], overrides: Sequence[Layer] = ()) -> RunConfig:
    """Check each layer, merge them (a later one wins, lists are replaced) and validate the result.

    `overrides` come last and count as one layer. A layer that names another data source resets the settings that
    describe the source of the layers below it: see `source_settings`.

    Raises ConfigError naming place, key, what was found and what is expected; for settings that exclude each other,
    both keys and both places.
    """
    from pydantic import ValidationError

    from qlora_tui.config.run import RunConfig

    merged: dict[str, Any] = {}
    for layer in layers:
        _check(layer)
        merged = _merge(without_other_source(merged, layer.values), layer.values)
    changes: dict[str, Any] = {}
    for layer in overrides:
        _check(layer)
        changes = _merge(changes, layer.values)
    merged = _merge(without_other_source(merged, changes), changes)
    try:
        return RunConfig.model_validate(merged, strict=True)
    except ValidationError as error:
        raise _contradiction(error, [*layers, *overrides]) from error


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name)
        merged[name] = _merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def _check(layer: Layer) -> None:
    """Raise ConfigError for unknown keys and wrong types of one layer; contradictions are left to the merged whole."""
    from pydantic import ValidationError

    from qlora_tui.config.run import RunConfig

    try:
        RunConfig.model_validate(layer.values, strict=True)
    except ValidationError as error:
        problems = _by_location(error.errors(include_url=False), layer.values)
        if not problems:
            return
        lines = [
            (f"{layer.where(place)}: {describe(place, details)}", _hint(place, details), details[0]["type"] == _UNKNOWN)
            for place, details in islice(problems.items(), _SHOWN_PROBLEMS)
        ]
        if len(problems) == 1:
            raise ConfigError(lines[0][0], hint=lines[0][1]) from error
        shown = [f"{line}. {hint}" if unknown else line for line, hint, unknown in lines]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise ConfigError("\n".join(shown)) from error


def _by_location(errors: Iterable[ErrorDetails], values: Mapping[str, Any]) -> dict[Location, list[ErrorDetails]]:
    """Errors by the path that a user wrote: pydantic adds the tried type of a union to it. The root is left out."""
    problems: dict[Location, list[ErrorDetails]] = {}
    for error in errors:
        place = _written(error["loc"], values, keep_last=error["type"] == "missing")
        if place:
            problems.setdefault(place, []).append(error)
    return problems


def _written(location: Location, values: Any, *, keep_last: bool) -> Location:
    place: list[str | int] = []
    for depth, part in enumerate(location):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return (*place, part) if keep_last and depth == len(location) - 1 else tuple(place)
        place.append(part)
    return tuple(place)


def dotted(place: Location) -> str:
    """`data.mix[0].source` for ("data", "mix", 0, "source")."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def describe(place: Location, errors: Sequence[ErrorDetails]) -> str:
    """One line: the key, what is wrong with it, and what is expected."""
    key, first = dotted(place), errors[0]
    if first["type"] == _UNKNOWN:
        return f"unknown key {key!r}"
    if first["type"] == "missing":
        return f"{key} is missing"
    expected = dict.fromkeys(expectation(error) for error in errors)
    return f"{key}: found {_found(first['input'])}, expected {' or '.join(expected)}"


def expectation(error: ErrorDetails) -> str:
    """What a value should have been, in the words of a configuration file."""
    words = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text in quotes",
        "string_too_short": "some text",
        "list_type": "a list",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "dict_type": "a table",
    }
    if "list[str]" in error["loc"]:
        return "a list of such texts"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "literal_error":
        message = "one of " + message if "," in message else message
    return words.get(error["type"], message)


def _found(value: Any) -> str:
    """The value as it would be written in TOML, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _hint(place: Location, errors: Sequence[ErrorDetails]) -> str:
    """The nearest key for an unknown one, else what the setting means."""
    from qlora_tui.config.fields import fields, suggest

    key = ".".join(part for part in place if isinstance(part, str))
    if errors[0]["type"] == _UNKNOWN:
        return suggest(key)
    return fields()[key].help if key in fields() else ""


def _contradiction(error: Exception, layers: Sequence[Layer]) -> ConfigError:
    """The error of the merged whole: which two settings exclude each other, and where each was written."""
    from pydantic import ValidationError

    from qlora_tui.config.contradictions import Contradiction

    assert isinstance(error, ValidationError)
    cause = error.errors(include_url=False)[0].get("ctx", {}).get("error")
    if not isinstance(cause, Contradiction):
        return ConfigError(str(error))
    places = [f"{key} from {_origin(key, layers)}" for key in cause.keys]
    return ConfigError(f"{cause} ({'; '.join(places)})", hint=cause.remedy)


def _origin(key: str, layers: Sequence[Layer]) -> str:
    place = tuple(key.split("."))
    for layer in reversed(layers):
        if _written(place, layer.values, keep_last=False) == place:
            return layer.where(place)
    return "the defaults"
