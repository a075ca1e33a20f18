"""The families of architectures whose weights are known in closed form. What differs between them is data."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "shapes" / "families.toml"
_GENERIC = "generic"
_MERGED = ("defaults", "names", "once", "stacks", "rows", "renamed")


@dataclass(frozen=True)
class Stack:
    """Layers of the same make."""

    path: str
    layers: str
    """Name of the dimension that counts them."""

    rows: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Family:
    """How the weights of one `model_type` follow from config.json; shapes/families.toml explains the fields."""

    model_type: str
    architecture: str
    base: str
    names: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, Any]
    once: Mapping[str, Mapping[str, Any]]
    stacks: tuple[Stack, ...]
    mlp_kind: str = "gated"
    moe: str | None = None
    sliding: Mapping[str, Any] = field(default_factory=dict)
    text_config: str | None = None
    vision: Mapping[str, str] | None = None
    transposed: bool = False
    quantized: bool = True
    encoder_decoder: bool = False
    rotary: float = 1.0
    usual: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Prefixes of tensor names in published checkpoints, and what transformers makes of them."""

    ignored: tuple[str, ...] = ()
    """Prefixes of tensors in published checkpoints that are not loaded."""

    notes: tuple[str, ...] = ()


def find(model_type: str) -> Family | None:
    """The family of a `model_type`, None for one without an entry."""
    return None if model_type == _GENERIC else _families().get(model_type)


def generic() -> Family:
    """No family: it knows only under which keys other architectures state their dimensions."""
    return _families()[_GENERIC]


def model_types() -> list[str]:
    """Every `model_type` with a family, parts of models such as vision towers among them."""
    return [model_type for model_type in _families() if model_type != _GENERIC]


@cache
def _families() -> dict[str, Family]:
    with _FILE.open("rb") as file:
        tables = tomllib.load(file)
    return {model_type: _family(model_type, _inherited(tables, model_type)) for model_type in tables}


def _inherited(tables: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    table = dict(tables[model_type])
    parent = table.pop("like", None)
    return table if parent is None else _merged(_inherited(tables, parent), table)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    alone = new.get("*") is False
    both = {} if alone else dict(old)
    for key, value in new.items():
        nested = key in _MERGED or (isinstance(value, dict) and "rows" in value)
        both[key] = _merged(old.get(key, {}), value) if nested and isinstance(value, dict) else value
    return both


def _family(model_type: str, table: dict[str, Any]) -> Family:
    stacks = table.pop("stacks")
    once = table.pop("once")
    return Family(
        model_type=model_type,
        architecture=table.pop("architecture"),
        base=table.pop("base"),
        names={name: tuple(choices) for name, choices in table.pop("names").items()},
        defaults=table.pop("defaults"),
        once={path: row for path, row in once.items() if row is not False},
        stacks=tuple(_stack(stack) for stack in stacks.values()),
        ignored=tuple(table.pop("ignored", ())),
        notes=tuple(table.pop("notes", ())),
        usual=tuple(table.pop("usual", ())),
        **table,
    )


def _stack(table: Mapping[str, Any]) -> Stack:
    rows = {path: row for path, row in table["rows"].items() if row is not False}
    return Stack(table["path"], table["layers"], rows)
