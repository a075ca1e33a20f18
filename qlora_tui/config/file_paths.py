"""Paths in a settings file are relative to the folder of the file, not to the current folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlora_tui import paths
from qlora_tui.config.data import KNOWN_SETS
from qlora_tui.config.model import STARTER
from qlora_tui.errors import ConfigError


def with_absolute_paths(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings of `file` with its relative paths made absolute. Other values are not checked.

    Names of known sets and hub ids are kept. Raises ConfigError for a file that exists only in the current folder.
    """
    changed = dict(values)
    model, data, training = (values.get(table) for table in ("model", "data", "training"))
    if isinstance(model, dict) and isinstance(model.get("id"), str):
        changed["model"] = model | {"id": _model(model["id"], file)}
    if isinstance(data, dict):
        changed["data"] = _data(data, file)
    if isinstance(training, dict) and isinstance(training.get("mmlu_file"), str):
        changed["training"] = training | {"mmlu_file": _beside(training["mmlu_file"], file)}
    return changed


def _data(data: Mapping[str, Any], file: Path) -> dict[str, Any]:
    changed = dict(data)
    for name in ("source", "eval_source"):
        if isinstance(data.get(name), str):
            changed[name] = _source(f"data.{name}", data[name], file)
    if isinstance(data.get("mix"), list):
        changed["mix"] = [
            part | {"source": _source("data.mix", part["source"], file)}
            if isinstance(part, dict) and isinstance(part.get("source"), str)
            else part
            for part in data["mix"]
        ]
    return changed


def _model(text: str, file: Path) -> str:
    if text == STARTER or not text:
        return text
    beside = _beside(text, file)
    found = paths.existing(beside)
    return beside if _is_written_as_path(text) or (found is not None and found.is_dir()) else text


def _source(key: str, text: str, file: Path) -> str:
    if text in KNOWN_SETS or not text:
        return text
    beside = _beside(text, file)
    if _is_written_as_path(text) or paths.existing(beside) is not None:
        return beside
    if not Path(text).suffix[1:].isalpha():
        return text
    if "/" not in text:
        return beside
    if paths.existing(text) is not None:
        raise ConfigError(
            f"{file}: {key} = {text!r}: no such file in {Path(beside).parent}",
            hint="Paths in a file are relative to its folder, not to the current one.",
        )
    return text


def _is_written_as_path(text: str) -> bool:
    """Return whether the text is neither the name of a known set nor a hub id."""
    return text.startswith((".", "~", "/")) or text.count("/") > 1


def _beside(text: str, file: Path) -> str:
    """Return the absolute path that `text` means in `file`; links are kept."""
    return os.path.abspath(file.parent / paths.expanded(text))  # noqa: PTH100
