"""Settings that describe one data source, and are reset when a later layer names another source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qlora_tui import paths
from qlora_tui.config.model import STARTER

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

_OF_SOURCE = (
    "config", "split", "revision", "format", "columns", "eval_source", "eval_split", "eval_rows", "max_eval_rows",
)  # fmt: skip
"""Names in [data] that describe its source: how to find and read the rows, and which of them evaluate."""

_OF_EVALUATION = ("eval_every_steps", "best_checkpoint", "early_stopping_evals")
"""Names in [training] that need evaluation rows."""


def without_other_source(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested settings of `lower` without those of its data source, if `upper` names another source.

    Settings of [training] that need evaluation rows go with them, unless `upper` names evaluation rows itself.
    """
    kept = dict(lower)
    data, new = dict(lower.get("data", {})), upper.get("data", {})
    if "source" not in new or same_source(new["source"], data.get("source", STARTER)):
        return kept
    kept["data"] = {name: found for name, found in data.items() if name not in _OF_SOURCE}
    if not any(new.get(name) for name in ("eval_source", "eval_split", "eval_rows")) and "training" in lower:
        training = lower["training"].items()
        kept["training"] = {name: found for name, found in training if name not in _OF_EVALUATION}
    return kept


def same_source(one: str, other: str) -> bool:
    """Whether two texts name the same data: equal names, or two spellings of one path."""
    if one == other:
        return True
    found, also = paths.existing(one), paths.existing(other)
    return found is not None and also is not None and os.path.abspath(found) == os.path.abspath(also)  # noqa: PTH100


def reset_settings(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Return what `before` set for its data source and `after` reset, by dotted key; empty for the same source."""
    return {} if same_source(before.data.source, after.data.source) else dict(_reset(before, after))


def _reset(before: RunConfig, after: RunConfig) -> Iterator[tuple[str, Any]]:
    from qlora_tui.config.fields import fields, value

    owned = (*(f"data.{name}" for name in _OF_SOURCE), *(f"training.{name}" for name in _OF_EVALUATION))
    for key, field in fields().items():
        if key.startswith(owned) and value(before, key) != field.default == value(after, key):
            yield key, value(before, key)


def reset_note(before: RunConfig, after: RunConfig) -> str:
    """Return a sentence about the settings that another data source has reset; empty when there are none."""
    from qlora_tui.config.command_line import text_of
    from qlora_tui.config.fields import fields

    reset = reset_settings(before, after)
    if not reset:
        return ""
    settings = ", ".join(f"{key} = {text_of(fields()[key], found)}" for key, found in reset.items())
    return f"reset to the default, because it belongs to data.source = {before.data.source}: {settings}"
