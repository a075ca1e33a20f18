"""Settings written as text: the inverse of `overrides`. A value as `--set` takes it, and the command of a whole run."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from qlora_tui.config.fields import Field, fields, value
from qlora_tui.config.overrides import edited, parse, resolve
from qlora_tui.errors import QloraError

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

_FLAGS = {"model.id": "--model", "data.source": "--data"}
"""Settings that the command has a flag of their own for."""


class CommandLine(NamedTuple):
    """A preset, or none, and the settings that differ from it."""

    preset: str | None
    values: dict[str, str]
    """Text by dotted key, as `--set` takes it."""

    @property
    def overrides(self) -> list[str]:
        """The `key=value` texts."""
        return [f"{key}={text}" for key, text in self.values.items()]

    @property
    def config(self) -> RunConfig:
        """The run that the command starts. Raises as `overrides.resolve`."""
        return resolve(self.preset, overrides=self.overrides)

    def shell_lines(self) -> list[str]:
        """The command for a shell, one flag a line; joined by " " it is one line."""
        words = ["qlora-tui", "train", *([self.preset] if self.preset else [])]
        lines = [shlex.join(words)]
        for key, text in self.values.items():
            flag = _FLAGS.get(key)
            lines.append(f"{flag} {shlex.quote(_plain(text))}" if flag else f"--set {shlex.quote(f'{key}={text}')}")
        return lines


def text_of(field: Field, found: Any) -> str:
    """`found` in the shortest spelling that `overrides.parse` reads back as the same value. Empty for None."""
    if found is None:
        return ""
    for text in _spellings(found):
        if parse(field, text) == found:
            return text
    return _toml(found)


def command_line(config: RunConfig, preset: str | None = None) -> CommandLine:
    """Return the command that starts this run, based on `preset` when a preset of that name can be read."""
    if preset is not None:
        try:
            return CommandLine(preset, _differences(config, resolve(preset)))
        except QloraError:  # The preset is gone or broken: the command does without it.
            preset = None
    values = _differences(config, resolve())
    for key in reversed(_FLAGS):
        values = {key: json.dumps(value(config, key), ensure_ascii=False)} | values
    return CommandLine(None, values)


def _differences(config: RunConfig, base: RunConfig) -> dict[str, str]:
    changed: dict[str, str] = {}
    if config.data.source != base.data.source:
        # Naming another source resets what the base says of its own, which depends on the other changes.
        changed["data.source"] = json.dumps(config.data.source, ensure_ascii=False)
        changed |= _unequal(config, edited(base, [f"data.source={changed['data.source']}"]))
        base = edited(base, [f"{key}={text}" for key, text in changed.items()])
    return changed | _unequal(config, base)


def _unequal(config: RunConfig, base: RunConfig) -> dict[str, str]:
    changed = {}
    for key, field in fields().items():
        found = value(config, key)
        if found != value(base, key):
            text = text_of(field, found)
            changed[key] = json.dumps(found, ensure_ascii=False) if key in _FLAGS else text or "none"
    return changed


def _spellings(found: Any) -> list[str]:
    if isinstance(found, bool):
        return [str(found).lower()]
    if isinstance(found, float) and found.is_integer() and abs(found) < 1e15:
        return [str(int(found)), str(found)]
    if isinstance(found, list):
        words = [", ".join(found)] if all(isinstance(word, str) for word in found) else []
        return [*words, _toml(found)]
    if isinstance(found, str):
        return [found, _toml(found)]
    return [str(found)]


def _toml(found: Any) -> str:
    """`found` as an inline TOML value."""
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, str):
        return json.dumps(found, ensure_ascii=False)
    if isinstance(found, list):
        return f"[{', '.join(_toml(one) for one in found)}]"
    if hasattr(found, "model_dump"):
        found = found.model_dump(exclude_none=True, exclude_defaults=True)
    if isinstance(found, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in found.items()) + "}"
    return str(found)


def _plain(text: str) -> str:
    """The text inside a JSON string."""
    return str(json.loads(text))
