"""Presets: named TOML files of settings, shipped ones and the user's own, which win over shipped ones of the same name.

A preset is a run configuration that says only what differs from the defaults. The comment block at its top is its
description: the first line is the title, the rest says when to use it and what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qlora_tui import paths
from qlora_tui.errors import ConfigError, NotFoundError, QloraError, RunConflictError

if TYPE_CHECKING:
    from qlora_tui.config.layers import Layer
    from qlora_tui.config.run import RunConfig

_LONGEST_NAME = 64
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Preset:
    name: str
    path: Path
    origin: Literal["shipped", "user"]

    @cached_property
    def text(self) -> str:
        """The file as it is. Raises StorageError or ConfigError."""
        from qlora_tui.config.toml_file import read_text

        return read_text(self.path)

    @property
    def description(self) -> tuple[str, ...]:
        """The comment lines at the top of the file."""
        lines: list[str] = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.lstrip("#").strip())
        return tuple(lines)

    @property
    def title(self) -> str:
        return self.description[0] if self.description else ""

    @cached_property
    def layer(self) -> Layer:
        """The settings in the file. Raises ConfigError or StorageError."""
        from qlora_tui.config.toml_file import read_layer

        return read_layer(self.path)

    @cached_property
    def config(self) -> RunConfig:
        """The whole run. Raises ConfigError naming file, line and key."""
        from qlora_tui.config.layers import build

        return build([self.layer])


def presets() -> list[Preset]:
    """All presets by name. The files are read when their content is asked for, so a broken one hides no other."""
    found = {path.stem: Preset(path.stem, path, "shipped") for path in _files(paths.shipped("presets"))}
    found |= {path.stem: Preset(path.stem, path, "user") for path in _files(paths.user_presets())}
    return [found[name] for name in sorted(found, key=_by_number)]


def _by_number(name: str) -> list[tuple[float, str]]:
    """Sort key under which 4b comes before 14b."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if index % 2 else (0.0, part) for index, part in enumerate(parts)]


def _files(folder: Path) -> list[Path]:
    return (
        [path for path in folder.glob("*.toml") if paths.is_name(path.stem, _LONGEST_NAME)] if folder.is_dir() else []
    )


def find(name: str) -> Preset:
    """The preset of that name. Raises NotFoundError with the nearest name."""
    known = {preset.name: preset for preset in presets()}
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]!r}?" if near else "See them with: qlora-tui presets list"
        raise NotFoundError(f"no such preset: {name}", hint=hint)
    return known[name]


def for_model(model_id: str, among: Sequence[Preset] | None = None) -> Preset | None:
    """Return the preset whose hyperparameters suit a model, or None.

    A preset for exactly this id comes before one for the same model in another variant (base or instruct), a name that
    is shipped before a name of the user's own. Presets that cannot be read are skipped. `among`: default all.
    """
    from qlora_tui.config.model import STARTER

    shipped = {path.stem for path in _files(paths.shipped("presets"))}
    best: tuple[tuple[bool, bool], Preset] | None = None
    for preset in presets() if among is None else among:
        try:
            named = str(preset.layer.values.get("model", {}).get("id", STARTER))
        except (QloraError, AttributeError):
            continue
        if named != model_id and _variant(named) != _variant(model_id):
            continue
        rank = (named != model_id, preset.name not in shipped)
        if best is None or rank < best[0]:
            best = rank, preset
    return best[1] if best is not None else None


def _variant(model_id: str) -> str:
    """Return the name of a model without its owner and variant suffixes."""
    return re.sub(r"(-(instruct|it|base|chat|hf))+$", "", Path(model_id).name.lower())


def split_target(target: str) -> tuple[str | None, Path | None]:
    """(preset, file) of what a person typed: a file if it has a path separator or ends in .toml, else a preset."""
    if target.endswith(".toml") or "/" in target or "\\" in target:
        return None, paths.expanded(target)
    return target, None


def user_path(name: str) -> Path:
    """Where the user's preset of that name lies or would lie. Raises ConfigError for a name that no file may have."""
    if not paths.is_name(name, _LONGEST_NAME) or _RESERVED.fullmatch(name) or name.endswith((".", ".toml")):
        raise ConfigError(
            f"not a preset name: {name!r}",
            hint="Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit, without .toml.",
        )
    return paths.user_presets() / f"{name}.toml"


def write(name: str, content: str, *, replace: bool = False) -> Path:
    """Write a preset of the user's own, whole or not at all; returns its path.

    Raises ConfigError (name), RunConflictError (exists, and not `replace`) or StorageError.
    """
    from qlora_tui import atomic

    path = user_path(name)
    if path.exists() and not replace:
        raise RunConflictError(
            f"preset {name} exists: {path}", hint="Choose another name, or replace it with --replace."
        )
    with atomic.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, content)
    return path
