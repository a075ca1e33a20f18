"""Where runs, presets, themes and caches live.

The one module that knows whether the program runs from a checkout or from an installed wheel: shipped presets and
themes lie beside the package in a checkout and inside it in a wheel.
"""

import os
from pathlib import Path

APP_NAME = "qlora-tui"
_PACKAGE = Path(__file__).resolve().parent


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def runs() -> Path:
    """Folder of all runs: `QLORA_TUI_RUNS`, else the platform's data folder."""
    return _from_environment("QLORA_TUI_RUNS") or data() / "runs"


def data() -> Path:
    """The user's data folder: `QLORA_TUI_HOME`/data, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "data" if home else Path(platformdirs.user_data_dir(APP_NAME, appauthor=False))


def config() -> Path:
    """The user's config folder (settings.toml, presets/, themes/): `QLORA_TUI_HOME`/config, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "config" if home else Path(platformdirs.user_config_dir(APP_NAME, appauthor=False))


def cache() -> Path:
    """The cache folder (tokenized datasets): `QLORA_TUI_HOME`/cache, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "cache" if home else Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))


def hub_cache() -> Path:
    """Where downloaded models and datasets lie: the hub's own cache, as its `HF_HUB_CACHE` and `HF_HOME` say."""
    home = (
        _from_environment("HF_HOME") or (_from_environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    return _from_environment("HF_HUB_CACHE") or home / "hub"


def user_presets() -> Path:
    """Presets of the user's own; they win over shipped ones of the same name."""
    return config() / "presets"


def user_themes() -> Path:
    """Themes of the user's own; they win over shipped ones of the same name."""
    return config() / "themes"


def shipped(kind: str) -> Path:
    """Folder of shipped `presets` or `themes`: inside the wheel, or beside the package in a checkout."""
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind
