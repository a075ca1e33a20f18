"""Shell completion of names: runs, presets, settings, models and datasets. Nothing here contacts the hub."""

from collections.abc import Iterable

from qlora_tui import paths


def runs(incomplete: str) -> list[str]:
    """Complete the name of a run."""
    from qlora_tui.runs import store

    return _matching((run.name for run in store.all_runs()), incomplete)


def presets(incomplete: str) -> list[str]:
    """Complete the name of a preset."""
    from qlora_tui.config.presets import presets as all_presets

    return _matching((preset.name for preset in all_presets()), incomplete)


def targets(incomplete: str) -> list[str]:
    """Complete a preset or a TOML file."""
    return [*presets(incomplete), *_paths(incomplete, ".toml")]


def models(incomplete: str) -> list[str]:
    """Complete the starter, a model of the catalogue or a folder."""
    from qlora_tui.config.model import STARTER
    from qlora_tui.models import catalogue

    return [*_matching([STARTER, *catalogue.ids()], incomplete), *_paths(incomplete, "")]


def estimates(incomplete: str) -> list[str]:
    """Complete what `estimate` accepts: a preset, a TOML file or a model."""
    return list(dict.fromkeys([*targets(incomplete), *models(incomplete)]))


def datasets(incomplete: str) -> list[str]:
    """Complete a known dataset, a file or a folder."""
    from qlora_tui.data.choices import file_choices, known_choices

    known = _matching((choice.source for choice in known_choices()), incomplete)
    return [*known, *(choice.source for choice in file_choices(incomplete))]


def settings(incomplete: str) -> list[str]:
    """Complete the key of a setting, and the value when its choices are known."""
    from qlora_tui.config.fields import fields

    key, equals, value = incomplete.partition("=")
    if not equals:
        return _matching((f"{name}=" for name in fields()), incomplete)
    field = fields().get(key)
    return [f"{key}={choice}" for choice in _matching(field.choices if field is not None else (), value)]


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, suffix: str) -> list[str]:
    """Folders, and files with this suffix unless it is empty."""
    found = []
    for entry in paths.beginning_like(incomplete or "."):
        if entry.is_dir():
            found.append(f"{entry}/")
        elif suffix and entry.suffix == suffix:
            found.append(str(entry))
    return found
