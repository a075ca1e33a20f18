"""Making a configuration independent of the current folder: a worker runs in its run's folder."""

import os
from typing import Any

from qlora_tui import paths
from qlora_tui.config.model import STARTER
from qlora_tui.config.run import RunConfig
from qlora_tui.data.registry import KNOWN
from qlora_tui.models.location import local_folder


def frozen(config: RunConfig) -> RunConfig:
    """`config` with absolute paths of the model, the data and the questions."""
    data: dict[str, Any] = {"source": _source(config.data.source)}
    if config.data.eval_source is not None:
        data["eval_source"] = _source(config.data.eval_source)
    if config.data.mix:
        data["mix"] = [spec.model_copy(update={"source": _source(spec.source)}) for spec in config.data.mix]
    changes: dict[str, Any] = {"data": config.data.model_copy(update=data)}
    mmlu_file = config.training.mmlu_file
    if mmlu_file is not None:
        changes["training"] = config.training.model_copy(update={"mmlu_file": _source(mmlu_file)})
    folder = local_folder(config.model)
    if folder is not None and config.model.id != STARTER:
        changes["model"] = config.model.model_copy(update={"id": os.path.abspath(folder)})  # noqa: PTH100
    return config.model_copy(update=changes)


def _source(text: str) -> str:
    """A path that exists as an absolute one, links kept; names of known sets and hub ids as they are."""
    path = None if text == STARTER or text in KNOWN else paths.existing(text)
    return text if path is None else os.path.abspath(path)  # noqa: PTH100
