"""Where runs, presets, themes and caches live, and what a path means that a person wrote.

The one module that knows whether the program runs from a checkout or from an installed wheel: shipped presets and
themes lie beside the package in a checkout and inside it in a wheel.
"""

import os
import unicodedata
from contextlib import suppress
from pathlib import Path

from qlora_tui.errors import ConfigError

APP_NAME = "qlora-tui"
_PACKAGE = Path(__file__).resolve().parent
_LONGEST_NAME_BYTES = 200
"""File systems allow 255; this leaves room for the suffixes of temporary files."""

_PATHS = (
    "QLORA_TUI_HOME", "QLORA_TUI_RUNS", "TMPDIR", "VIRTUAL_ENV",
    "HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_XET_CACHE",
    "HF_TOKEN_PATH", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC",
    "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR",
)  # fmt: skip
"""Environment variables that name one file or folder, read by this program or by the libraries it uses."""

_PATH_LISTS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
"""Environment variables that name several, separated by colons. An empty entry is the current folder."""


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return text_path(_absolute(value), variable) if value else None


def text_path(path: Path, where: str) -> Path:
    """`path`. Raises ConfigError for one that is not UTF-8, which no settings file or log could hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: the path {os.fsencode(path)!r} is not UTF-8 text", hint="Rename the folder, or use another one."
        ) from error
    return path


def _absolute(text: str) -> Path:
    """Return the path as written by the user, made absolute; links are kept."""
    return Path(os.path.abspath(expanded(text)))  # noqa: PTH100


def child_environment(**changes: str) -> dict[str, str]:
    """Return the environment for a child process, whose working directory may be another one.

    Every path in it is absolute. `changes` are set on top.
    """
    environment = dict(os.environ)
    with suppress(FileNotFoundError):  # the current folder was deleted: relative paths mean nothing any more
        for variable in _PATHS:
            if environment.get(variable):
                environment[variable] = str(_absolute(environment[variable]))
        for variable in _PATH_LISTS:
            if environment.get(variable):
                entries = environment[variable].split(os.pathsep)
                environment[variable] = os.pathsep.join(str(_absolute(entry)) for entry in entries)
    return environment | changes


def expanded(text: str) -> Path:
    """The path that a person wrote; "~" and "~name" are home folders where there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_name(text: str, longest: int) -> bool:
    """Return whether `text` can name a run or preset: letters and digits of any script, dots, dashes, underscores.

    The first character is a letter or digit. `longest` is in characters.
    """
    kinds = [unicodedata.category(character)[0] for character in text]
    plain = all(kind in "LMN" or character in "._-" for character, kind in zip(text, kinds, strict=True))
    return bool(kinds) and kinds[0] in "LN" and plain and len(text) <= longest and _fits(text)


def _fits(text: str) -> bool:
    return len(text.encode("utf-8", "replace")) <= _LONGEST_NAME_BYTES


def existing(text: str) -> Path | None:
    """`expanded` where there is something that can be looked at, else None: also for what can be no path."""
    path = expanded(text)
    try:
        path.stat()
    except (OSError, ValueError):
        return None
    return path


def beginning_like(text: str) -> list[Path]:
    """What lies in the folder `text`, or lies beside and begins like it; sorted. Empty where nothing can be listed."""
    path = expanded(text)
    folder = existing(text)
    inside, wanted = (path, "") if folder is not None and folder.is_dir() else (path.parent, path.name)
    try:
        return sorted(each for each in inside.iterdir() if each.name.startswith(wanted))
    except (OSError, ValueError):
        return []


def runs() -> Path:
    """Folder of all runs: `QLORA_TUI_RUNS`, else the platform's data folder."""
    return _from_environment("QLORA_TUI_RUNS") or data() / "runs"


def data() -> Path:
    """The user's data folder: `QLORA_TUI_HOME`/data, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "data" if home else _absolute(platformdirs.user_data_dir(APP_NAME, appauthor=False))


def config() -> Path:
    """The user's config folder (settings.toml, presets/, themes/): `QLORA_TUI_HOME`/config, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "config" if home else _absolute(platformdirs.user_config_dir(APP_NAME, appauthor=False))


def cache() -> Path:
    """The cache folder (tokenized datasets): `QLORA_TUI_HOME`/cache, else the platform's."""
    import platformdirs

    home = _from_environment("QLORA_TUI_HOME")
    return home / "cache" if home else _absolute(platformdirs.user_cache_dir(APP_NAME, appauthor=False))


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
