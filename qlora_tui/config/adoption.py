"""Another base model for a run: the hyperparameters of the preset for that model, and the user's own edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qlora_tui.config import presets
from qlora_tui.config.command_line import text_of
from qlora_tui.config.fields import fields, value
from qlora_tui.config.overrides import edited
from qlora_tui.config.source_settings import described_by_source, same_source
from qlora_tui.errors import ConfigError

if TYPE_CHECKING:
    from qlora_tui.config.presets import Preset
    from qlora_tui.config.run import RunConfig

_OF_MODEL = ("model.id", "model.revision", "model.trust_remote_code", "model.allow_pickle")


@dataclass(frozen=True)
class Adopted:
    """A configuration for another model, and where its values come from."""

    config: RunConfig
    base: RunConfig
    """The configuration that the user's own edits are relative to."""

    preset: str | None
    """The preset whose hyperparameters were adopted; None for the general defaults."""

    kept: tuple[str, ...]
    """Dotted keys of the user's own edits that still apply."""


def for_model(
    config: RunConfig,
    base: RunConfig,
    model_id: str,
    *,
    context_tokens: int | None = None,
    among: Sequence[Preset] | None = None,
) -> Adopted:
    """Return `config` for another model: the settings of its preset, with the data source and the user's edits kept.

    A setting is the user's own where `config` differs from `base`. Without a preset for the model the general defaults
    apply, and rows are limited to the model's context. If the edits conflict with the new settings, all are dropped.
    `among`: the presets to choose from, default all.
    """
    preset = presets.for_model(model_id, among)
    target = _target(preset, model_id, context_tokens)
    edits = {
        key: _text(config, key)
        for key in fields()
        if key not in (*_OF_MODEL, "data.source") and value(config, key) != value(base, key)
    }
    source = {"data.source": _text(config, "data.source")}
    if not same_source(config.data.source, target.data.source):
        source |= {key: _text(config, key) for key in described_by_source()}
    name = preset.name if preset is not None else None
    new_base = _with(target, source)
    try:
        return Adopted(_with(target, source | edits), new_base, name, tuple(edits))
    except ConfigError:
        return Adopted(new_base, new_base, name, ())


def _target(preset: Preset | None, model_id: str, context_tokens: int | None) -> RunConfig:
    from qlora_tui.config.run import RunConfig

    model = {"model.id": text_of(fields()["model.id"], model_id)}
    if preset is not None:
        return _with(preset.config, model)
    default = RunConfig()
    if context_tokens is not None and context_tokens < default.training.max_length_tokens:
        model["training.max_length_tokens"] = str(context_tokens)
    return _with(default, model)


def _with(config: RunConfig, texts: dict[str, str]) -> RunConfig:
    changed = {key: text for key, text in texts.items() if text != _text(config, key)}
    return edited(config, [f"{key}={text}" for key, text in changed.items()]) if changed else config


def _text(config: RunConfig, key: str) -> str:
    return text_of(fields()[key], value(config, key))
