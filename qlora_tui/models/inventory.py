"""The weights of a model without a family of its own, sorted by the names and shapes of its stored tensors."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from qlora_tui.models.facts import ModuleGroup, ModuleKind
from qlora_tui.models.tensors import StoredTensor, Tensors, is_buffer, pattern

_VISION = re.compile(r"(?:^|\.)(?:vision|visual|vit|image|multi_modal_projector|mm_projector|audio)\w*\.")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)$")
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|tok_embeddings|shared)$")
_EXPERT = re.compile(r"\.experts(?:\.|$)")
_ROUTER = re.compile(r"(?:^|\.)(?:router|gate)$")
_NORM = re.compile(r"(?:norm|ln_\w+|layer_?norm)\w*$")


@dataclass
class _Module:
    weight: StoredTensor
    raw: bool
    count: int = 0
    bias_elements: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)


def modules(tensors: Tensors) -> list[ModuleGroup]:
    """Groups of modules as the names suggest them. An expert stored as a matrix of its own stays one."""
    return [_group(name, module) for name, module in _modules(tensors)]


def _modules(tensors: Tensors) -> Iterator[tuple[str, _Module]]:
    found: defaultdict[tuple[str, tuple[int, ...], int], list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if is_buffer(name) or (name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight" in tensors):
            continue
        bias = tensors.get(f"{name.removesuffix('.weight')}.bias") if name.endswith(".weight") else None
        found[pattern(name), tensor.shape, bias.elements if bias else 0].append(name)
    for (name, _, bias_elements), names in found.items():
        module = _Module(tensors[names[0]], not name.endswith(".weight"), len(names), bias_elements)
        module.dtypes.update(tensors[each].dtype for each in names)
        yield name.removesuffix(".weight"), module


def _group(name: str, module: _Module) -> ModuleGroup:
    shape = module.weight.shape
    kind = _kind(name, module)
    linear = kind == "linear"
    return ModuleGroup(
        name=name,
        kind=kind,
        shape=shape,
        count=module.count,
        bias_elements=module.bias_elements,
        quantized=linear,
        vision=bool(_VISION.search(name)),
        in_features=shape[1] if linear else 0,
        out_features=shape[0] if linear else 0,
        dtype=module.dtypes.most_common(1)[0][0],
        raw=module.raw,
    )


def _kind(name: str, module: _Module) -> ModuleKind:
    dimensions = len(module.weight.shape)
    if _EXPERT.search(name):
        return "expert"
    if dimensions == 2 and not module.raw:
        if _HEAD.search(name):
            return "head"
        if _EMBEDDING.search(name):
            return "embedding"
        return "router" if _ROUTER.search(name) else "linear"
    if dimensions == 1 and _NORM.search(name):
        return "norm"
    return "other"
