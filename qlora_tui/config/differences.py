"""Where configurations differ."""

from collections.abc import Sequence
from typing import Any

from qlora_tui.config.fields import fields
from qlora_tui.config.run import RunConfig


def differences(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """Settings that are not the same everywhere: dotted key to the value of each configuration, in their order."""
    found = {}
    for key in fields():
        values = [_value(config, key) for config in configs]
        if any(value != values[0] for value in values):
            found[key] = values
    return found


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
