"""Rows prepared as a run prepares them, and what they train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_material import starter_tokenizer

from qlora_tui.config.run import RunConfig
from qlora_tui.data.prepare import Prepared, prepare


def config(source: Path | str, training: dict[str, Any] | None = None, **data: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"source": str(source), **data}, "training": training or {}})


def run(source: Path | str, training: dict[str, Any] | None = None, **data: Any) -> Prepared:
    return prepare(config(source, training, **data), starter_tokenizer())


def answers(dataset: Any) -> list[str]:
    """What each row trains, as text."""
    tokenizer = starter_tokenizer()
    return [
        tokenizer.decode([label for label in row["labels"] if label != -100]).removesuffix("<|im_end|>")
        for row in dataset
    ]
