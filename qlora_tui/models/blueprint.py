"""The weights of a model of a known family, computed from its config.json."""

from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from qlora_tui.models.dimensions import Dimensions
from qlora_tui.models.facts import ModuleGroup, ModuleKind
from qlora_tui.models.families import Family
from qlora_tui.models.layers import moe_layer_count

_KINDS = get_args(ModuleKind)


def modules(family: Family, dimensions: Dimensions, dtype: str, *, vision: bool = False) -> list[ModuleGroup]:
    """Every group of weights that transformers builds. Raises ModelError for a config.json that lies."""
    return [
        _group(path.replace("$", family.base), row, count, dimensions, dtype, vision)
        for path, row, count in _rows(family, dimensions)
        if count and all(dimensions.holds(condition) for condition in row.get("when", ()))
    ]


def _rows(family: Family, dimensions: Dimensions) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    for path, row in family.once.items():
        yield path, row, 1
    for stack in family.stacks:
        layers = dimensions.number(stack.layers)
        with_experts = moe_layer_count(family, dimensions, layers)
        counts = {None: layers, "dense": layers - with_experts, "moe": with_experts}
        for path, row in stack.rows.items():
            yield f"{stack.path}.{path}", row, counts[row.get("on")]


def _group(
    name: str, row: Mapping[str, Any], count: int, dimensions: Dimensions, dtype: str, vision: bool
) -> ModuleGroup:
    kind = cast(ModuleKind, next(key for key in row if key in _KINDS))
    sizes = tuple(dimensions.size(expression) for expression in row[kind])
    family = dimensions.family
    bias = row.get("bias", False)
    with_bias = bias if isinstance(bias, bool) else dimensions.holds(bias)
    linear = kind == "linear"
    shape = sizes if not linear or family.transposed else sizes[::-1]
    outputs = sizes[-1] if linear else sizes[0]
    return ModuleGroup(
        name=name,
        kind=kind,
        shape=shape,
        count=count * (dimensions.number(row["times"]) if "times" in row else 1),
        bias_elements=outputs if with_bias else 0,
        quantized=linear and family.quantized and row.get("quantized", True),
        vision=vision or row.get("part") == "vision",
        in_features=sizes[0] if linear else 0,
        out_features=sizes[1] if linear else 0,
        dtype=dtype,
        raw=row.get("raw", False),
    )
