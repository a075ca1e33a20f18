"""Settings that describe one data source or one model, and are reset when a later layer names another one."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from qlora_tui import paths

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

_OF_SOURCE = (
    "config", "split", "revision", "format", "columns", "eval_source", "eval_split", "eval_rows", "max_eval_rows",
)  # fmt: skip
"""Names in [data] that describe its source: how to find and read the rows, and which are evaluation rows."""

_OF_EVALUATION = ("eval_every_steps", "best_checkpoint", "early_stopping_evals")
"""Names in [training] that need evaluation rows."""

_OF_MODEL = ("revision", "trust_remote_code", "allow_pickle")
"""Names in [model] that apply to one model only."""


def without_other_source(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested settings of `lower` that still apply below `upper`.

    Where `upper` names another data source or model, the settings that describe the one of `lower` are left out.
    Settings of [training] that need evaluation rows go with them, unless `upper` names evaluation rows itself.
    """
    kept = dict(lower)
    model, data = lower.get("model", {}), lower.get("data", {})
    if _names_another(upper, "model", "id", model):
        kept["model"] = _without(model, _OF_MODEL)
    if _names_another(upper, "data", "source", data):
        kept["data"] = _without(data, _OF_SOURCE)
        if not any(upper["data"].get(name) for name in ("eval_source", "eval_split", "eval_rows")):
            kept["training"] = _without(lower.get("training", {}), _OF_EVALUATION)
    return kept


def _names_another(upper: Mapping[str, Any], table: str, name: str, lower: Mapping[str, Any]) -> bool:
    from qlora_tui.config.model import STARTER

    named = upper.get(table, {}).get(name)
    return named is not None and not same_source(named, lower.get(name, STARTER))


def _without(settings: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: found for name, found in settings.items() if name not in names}


def same_source(one: str, other: str) -> bool:
    """Return whether two texts name the same data: equal names, or two spellings of one path."""
    if one == other:
        return True
    found, also = paths.existing(one), paths.existing(other)
    return found is not None and also is not None and os.path.abspath(found) == os.path.abspath(also)  # noqa: PTH100


def described_by_source() -> list[str]:
    """Return the dotted keys of the settings that describe `data.source`."""
    from qlora_tui.config.fields import fields

    return [key for key in fields() if key.startswith(tuple(f"data.{name}" for name in _OF_SOURCE))]


def reset_settings(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Return what `before` set for its data source and model, and `after` reset for others, by dotted key."""
    from qlora_tui.config.fields import fields, value

    owned: list[str] = []
    if not same_source(before.model.id, after.model.id):
        owned += [f"model.{name}" for name in _OF_MODEL]
    if not same_source(before.data.source, after.data.source):
        owned += [*described_by_source(), *(f"training.{name}" for name in _OF_EVALUATION)]
    return {
        key: value(before, key) for key in owned if value(before, key) != fields()[key].default == value(after, key)
    }


def reset_note(before: RunConfig, after: RunConfig) -> str:
    """Return a sentence about the settings that another data source or model has reset; empty when there are none."""
    from qlora_tui.config.command_line import text_of
    from qlora_tui.config.fields import fields

    reset = reset_settings(before, after)
    if not reset:
        return ""
    settings = ", ".join(f"{key} = {text_of(fields()[key], found)}" for key, found in reset.items())
    owner = before.data.source if any(not key.startswith("model.") for key in reset) else before.model.id
    return f"Reset to the default, because it was set for {owner}: {settings}."
