"""Build the configuration from a command line and report which settings were reset."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig


def configured(preset: str | None, file: Path | None, overrides: Sequence[str]) -> "RunConfig":
    """Resolve a preset or file with `key=value` overrides; report the settings that another data source reset.

    Raises as `config.overrides.resolve`.
    """
    from qlora_tui.config.overrides import resolve
    from qlora_tui.config.source_settings import reset_note
    from qlora_tui.errors import ConfigError

    config = resolve(preset, file, overrides)
    with suppress(ConfigError):  # A preset that is only valid with the overrides.
        if note := reset_note(resolve(preset, file), config):
            narrate(note)
    return config
