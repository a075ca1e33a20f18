"""Which layers of a model have experts, and which see no further than a sliding window."""

from qlora_tui.models.dimensions import Dimensions
from qlora_tui.models.families import Family

_WINDOWED = ("sliding_attention", "chunked_attention")


def moe_layer_count(family: Family, dimensions: Dimensions, layers: int) -> int:
    """How many of `layers` have experts, by the rule of transformers' modelling code for the family."""
    if family.moe is None:
        return 0
    if family.moe == "all":
        return layers
    if family.moe == "after_first_dense":
        return max(0, layers - (dimensions.optional("first_k_dense_replace") or 0))
    if family.moe == "interleaved":
        named = dimensions.layer_numbers("moe_layers")
        step = dimensions.optional("interleave_moe_layer_step") or 1
        chosen = range(step - 1, layers, step) if named is None else named
        return sum(layer in chosen for layer in range(layers))
    step = dimensions.optional("decoder_sparse_step") or 1
    dense = dimensions.layer_numbers("mlp_only_layers") or []
    return sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def sliding_window(family: Family, dimensions: Dimensions, layers: int) -> tuple[int | None, int]:
    """The window in tokens and how many layers it binds; (None, 0) when all layers see everything."""
    rule = family.sliding
    if not rule:
        return None, 0
    flag = rule.get("when")
    if flag and not dimensions.holds(flag):
        return None, 0
    window = dimensions.optional(rule.get("window", "sliding_window"))
    if window is None:
        return None, 0
    types = dimensions.raw("layer_types")
    if isinstance(types, list):
        bound = sum(kind in _WINDOWED for kind in types)
    elif "every" in rule:
        bound = layers - (layers // int(rule["every"]) if rule["every"] else 0)
    elif "only" in rule:
        bound = layers // int(rule["only"])
    else:
        bound = layers - min(layers, dimensions.optional(rule["first"]) or 0)
    return (window, bound) if bound else (None, 0)
