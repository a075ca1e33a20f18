"""The user's preferences: settings.toml in the config folder. What a run needs is in its RunConfig, never here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from qlora_tui import atomic, paths
from qlora_tui.config.spec import Spec
from qlora_tui.config.toml_file import read_layer
from qlora_tui.errors import ConfigError, NotFoundError


class Settings(Spec):
    """Preferences of one person on this machine."""

    theme: str = "ember"
    """Name of a theme: a file in themes/ without its ending, or one of Textual's own."""

    keymap: dict[str, str] = Field(default_factory=dict)
    """Keys of your own: the id of a binding to its keys, with commas: "workbench.runs" to "f5,ctrl+r"."""

    refresh_hz: Annotated[float, Field(gt=0, le=30)] = 4.0
    """How often a screen reads the run that it shows, in times a second. Lower it over a slow connection."""

    animation: Literal["full", "basic", "none"] = "basic"
    """How much moves: "none" redraws only what has changed."""


def file() -> Path:
    """Where the settings lie."""
    return paths.config() / "settings.toml"


def load() -> Settings:
    """The settings, or the defaults when there are none. Raises ConfigError, StorageError."""
    path = file()
    try:
        return Settings.model_validate(read_layer(path).values)
    except NotFoundError:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}, {key}: {first['msg']}", hint="Mend the line or remove it.") from error


def save(settings: Settings) -> None:
    """Write what differs from the defaults. Raises StorageError."""
    import tomlkit

    path = file()
    atomic.make_folder(path.parent)
    atomic.write_text(path, tomlkit.dumps(settings.model_dump(exclude_defaults=True)))
