"""Paths in a configuration: made absolute for a worker, and removed for publication."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qlora_tui import paths
from qlora_tui.config.model import STARTER
from qlora_tui.config.run import RunConfig
from qlora_tui.data.registry import KNOWN
from qlora_tui.models.location import local_folder, public_id

PUBLISHED_COMMENT = "Local paths are replaced by the names of the files and folders."


def frozen(config: RunConfig) -> RunConfig:
    """`config` with absolute paths of the model, the data and the questions. Raises ConfigError."""
    folder = local_folder(config.model)
    is_path = folder is not None and config.model.id != STARTER
    return _renamed(config, _from_root(str(folder)) if is_path else config.model.id, _absolute)


def published(config: RunConfig) -> RunConfig:
    """Return a frozen `config` with local paths replaced by the names of the files or folders."""
    return _renamed(config, public_id(config.model), _file_name)


def _renamed(config: RunConfig, model_id: str, rename: Callable[[str], str]) -> RunConfig:
    data: dict[str, Any] = {"source": rename(config.data.source)}
    if config.data.eval_source is not None:
        data["eval_source"] = rename(config.data.eval_source)
    if config.data.mix:
        data["mix"] = [spec.model_copy(update={"source": rename(spec.source)}) for spec in config.data.mix]
    changes: dict[str, Any] = {"data": config.data.model_copy(update=data)}
    mmlu_file = config.training.mmlu_file
    if mmlu_file is not None:
        changes["training"] = config.training.model_copy(update={"mmlu_file": rename(mmlu_file)})
    if model_id != config.model.id:
        changes["model"] = config.model.model_copy(update={"id": model_id})
    return config.model_copy(update=changes)


def _absolute(text: str) -> str:
    """A path that exists as an absolute one, links kept; names of known sets and hub ids as they are."""
    path = None if text == STARTER or text in KNOWN else paths.existing(text)
    return text if path is None else _from_root(str(path))


def _from_root(path: str) -> str:
    """The absolute path, links kept. Raises ConfigError for one that is not UTF-8."""
    return str(paths.text_path(Path(os.path.abspath(path)), "the configuration"))  # noqa: PTH100


def _file_name(text: str) -> str:
    path = paths.expanded(text)
    return path.name if path.is_absolute() else text
