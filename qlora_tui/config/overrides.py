"""`--set training.learning_rate=1e-4`: one setting as text, for every setting there is; and the order of precedence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlora_tui.config.fields import Field, fields, suggest, tables
from qlora_tui.config.layers import Layer, build
from qlora_tui.config.toml_lines import Location, parse_toml
from qlora_tui.errors import ConfigError

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

_NOTHING = {"", "none", "null"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_WORD_LIST = re.compile(r"[\w./:=-]+(\s*,\s*[\w./:=-]+)+,?")
"""Names with commas between them: a list. Sentences and regular expressions are not."""


def resolve(preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """The run that results from defaults < preset < file < overrides (`key=value` texts, a later one wins).

    Raises ConfigError naming the place of the mistake, NotFoundError for an unknown preset or file, StorageError.
    """
    from qlora_tui.config.presets import find
    from qlora_tui.config.toml_file import read_layer

    layers: list[Layer] = []
    if preset is not None:
        layers.append(find(preset).layer)
    if file is not None:
        layers.append(read_layer(file))
    return build(layers, [override_layer(text) for text in overrides])


def edited(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """`config` with later edits (`key=value` texts), validated as a whole. Raises ConfigError."""
    base = Layer(config.model_dump(exclude_unset=True), lambda _: "the present configuration")
    return build([base], [override_layer(text) for text in overrides])


def override_layer(text: str) -> Layer:
    """The layer of one `key=value`. Raises ConfigError for a missing `=` or an unknown key."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError(f"--set {text}: no '='", hint="Write it as --set training.learning_rate=1e-4.")
    if key not in fields() and (key not in tables() or not key):
        raise ConfigError(f"--set {text}: unknown key {key!r}", hint=suggest(key))
    parsed: Any = parse(fields()[key], value) if key in fields() else _toml(value)
    for name in reversed(key.split(".")):
        parsed = {name: parsed}

    def where(_: Location) -> str:
        return f"--set {text}"

    return Layer(parsed, where)


def parse(field: Field, text: str) -> Any:
    """The value that `text` stands for in `field`; when it fits no type of the field, the text itself.

    Validation of the layer then says what was expected. Empty and `none` mean None for settings that may be empty.
    Lists are TOML lists or names with commas between them.
    """
    text = text.strip()
    if field.optional and text.lower() in _NOTHING:
        return None
    value = _toml(text)
    if list in field.kinds:
        return _parse_list(field, text, value)
    if bool in field.kinds:
        return _BOOLEANS.get(text.lower(), value)
    if str in field.kinds:
        return value if isinstance(value, str) else text
    return _parse_number(text, value)


def _parse_list(field: Field, text: str, value: Any) -> Any:
    if isinstance(value, list):
        return value
    if text.lower() in _NOTHING and str not in field.kinds:
        return []
    if _WORD_LIST.fullmatch(text):
        return [word.strip() for word in text.split(",") if word.strip()]
    if str in field.kinds:
        return value if isinstance(value, str) else text
    return [value if isinstance(value, str | dict) else text]


def _parse_number(text: str, value: Any) -> Any:
    if isinstance(value, int | float):
        return value
    try:
        return float(text)  # such as .5 and 1.: numbers for people, not for TOML
    except ValueError:
        return value


def _toml(text: str) -> Any:
    """`text` as a TOML value, or unchanged when it is none."""
    try:
        values = parse_toml(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return values["value"] if values.keys() == {"value"} else text
