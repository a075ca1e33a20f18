"""Where configurations differ."""

from collections.abc import Sequence
from typing import Any

from qlora_tui.config.fields import fields, value
from qlora_tui.config.run import RunConfig


def differences(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """Settings that are not the same everywhere: dotted key to the value of each configuration, in their order."""
    found = {}
    for key in fields():
        values = [value(config, key) for config in configs]
        if any(each != values[0] for each in values):
            found[key] = values
    return found
