"""Every setting by its dotted key, such as `training.learning_rate`: type, help, default; the nearest key to a typo."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig


@dataclass(frozen=True)
class Field:
    """One setting: a leaf of RunConfig, or a list of tables such as `data.mix`."""

    key: str
    """Dotted key."""

    info: FieldInfo

    @property
    def help(self) -> str:
        return self.info.description or ""

    @property
    def default(self) -> Any:
        return self.info.get_default(call_default_factory=True)

    @property
    def optional(self) -> bool:
        """Whether the setting may be empty."""
        return types.NoneType in _alternatives(self.info.annotation)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The plain types that the value may have: str, int, float, bool, list."""
        kinds = [get_origin(kind) or kind for kind in _alternatives(self.info.annotation)]
        return tuple(str if kind is Literal else kind for kind in kinds if kind is not types.NoneType)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words, when only certain words are."""
        return tuple(
            word
            for kind in _alternatives(self.info.annotation)
            if get_origin(kind) is Literal
            for word in get_args(kind)
        )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _spec(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _walk(spec: type[BaseModel], prefix: str) -> Iterator[Field]:
    for name, info in spec.model_fields.items():
        nested = _spec(info.annotation)
        if nested is None:
            yield Field(prefix + name, info)
        else:
            yield from _walk(nested, f"{prefix}{name}.")


@cache
def fields() -> Mapping[str, Field]:
    """All settings of RunConfig by dotted key, in the order of the specs."""
    from qlora_tui.config.run import RunConfig

    return {field.key: field for field in _walk(RunConfig, "")}


def value(config: RunConfig, key: str) -> Any:
    """The value of a setting by its dotted key."""
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


@cache
def tables() -> Mapping[str, tuple[str, ...]]:
    """The tables of RunConfig by dotted key (the top is ""), each with the names that are valid in it."""
    from qlora_tui.config.run import RunConfig

    found: dict[str, tuple[str, ...]] = {}

    def visit(spec: type[BaseModel], key: str) -> None:
        found[key] = tuple(spec.model_fields)
        for name, info in spec.model_fields.items():
            inner = get_args(info.annotation)
            nested = _spec(info.annotation) or (_spec(inner[0]) if get_origin(info.annotation) is list else None)
            if nested is not None:
                visit(nested, f"{key}.{name}" if key else name)

    visit(RunConfig, "")
    return found


def suggest(unknown: str) -> str:
    """A hint for an unknown dotted key: the nearest valid one, else what is valid in its table."""
    table, _, name = unknown.rpartition(".")
    siblings = tables().get(table, ())
    by_name = {key.rpartition(".")[2]: key for key in reversed(list(fields()))}
    if name in _OTHER_NAMES:
        near = _OTHER_NAMES[name]
    elif close := get_close_matches(name, siblings, n=1, cutoff=0.6):
        near = f"{table}.{close[0]}" if table else close[0]
    elif table not in tables() and (close := get_close_matches(unknown, fields(), n=1, cutoff=0.75)):
        near = close[0]
    elif close := get_close_matches(name, by_name, n=1, cutoff=0.7):
        near = by_name[close[0]]
    elif siblings and table:
        return f"Valid in [{table}]: {', '.join(siblings)}."
    else:
        return f"Valid tables: {', '.join(tables()[''])}."
    return f"Did you mean {near!r}?"


_OTHER_NAMES = {
    "lora": "adapter",
    "peft": "adapter",
    "lr": "training.learning_rate",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "bits": "quantization.kind",
    "quant_type": "quantization.kind",
    "load_in_4bit": "quantization.kind",
    "double_quant": "quantization.double_quantization",
    "model_name_or_path": "model.id",
    "batch_size": "training.micro_batch_size",
    "per_device_train_batch_size": "training.micro_batch_size",
    "num_train_epochs": "training.epochs",
    "max_seq_length": "training.max_length_tokens",
    "max_length": "training.max_length_tokens",
    "lr_scheduler_type": "training.schedule",
    "dataset": "data.source",
    "train_on_source": "training.loss_on",
}
"""What other trainers call a setting, where the spelling alone would not lead to ours."""
