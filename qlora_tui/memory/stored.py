"""Bytes of the base model's weights as bitsandbytes 0.50 and transformers 5 keep them. Exact, tensor by tensor."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.memory.allocator import rounded
from qlora_tui.models.facts import DTYPE_BYTES, ModelFacts, ModuleGroup

BLOCK = 64
"""Weights that share one absmax."""

NESTED_BLOCK = 256
"""Absmax values that share one constant of double quantization."""

_CODE_BYTES = 16 * 4
_NESTED_CODE_BYTES = 256 * 4
_OFFSET_BYTES = 4

Part = Literal[
    "packed", "absmax", "nested_absmax", "tables", "scb", "plain_linear", "embedding", "head", "norm", "bias", "expert",
    "other",
]  # fmt: skip
Round = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Dtypes:
    """Bytes of one element of what is not quantized."""

    plain: int
    """Norms, biases, experts, routers and whatever else bitsandbytes leaves alone."""

    table: int
    """Embedding and head."""


def loaded_dtypes(weight_bytes: int) -> Dtypes:
    """As loaded: everything in one dtype."""
    return Dtypes(weight_bytes, weight_bytes)


def prepared_dtypes(weight_bytes: int, *, original: bool, on_gpu: bool) -> Dtypes:
    """While training. The original recipe makes all that is not quantized float32, and the tables bfloat16 again
    where bfloat16 is computed in; the lean recipe leaves what was loaded."""
    if not original:
        return loaded_dtypes(weight_bytes)
    return Dtypes(plain=4, table=2 if on_gpu else 4)


def four_bit(elements: int, spec: QuantizationSpec) -> dict[Part, tuple[int, ...]]:
    """Sizes of the tensors of one 4-bit weight.

    Packed nibbles in containers of `quant_storage`; one float32 absmax for 64 weights and a code book of 16 float32.
    With double quantization absmax is one byte, with a float32 constant for 256 of them, an offset, and a code book
    of 256 float32, of which every module keeps its own.
    """
    blocks = -(-elements // BLOCK)
    container = DTYPE_BYTES[spec.quant_storage]
    packed = (elements + 1) // (2 * container) * container
    if not spec.double_quantization:
        return {"packed": (packed,), "absmax": (4 * blocks,), "tables": (_CODE_BYTES,)}
    nested = 4 * -(-blocks // NESTED_BLOCK)
    return {
        "packed": (packed,),
        "absmax": (blocks,),
        "nested_absmax": (nested,),
        "tables": (_CODE_BYTES, _OFFSET_BYTES, _NESTED_CODE_BYTES),
    }


def eight_bit(elements: int, out_features: int) -> dict[Part, tuple[int, ...]]:
    """Sizes of the tensors of one LLM.int8() weight: a byte an element, and a float32 absmax for each output."""
    return {"packed": (elements,), "scb": (4 * out_features,)}


def weights(facts: ModelFacts, spec: QuantizationSpec, dtypes: Dtypes, *, charged: bool = False) -> Mapping[Part, int]:
    """Bytes of all weights by part. `charged`: as the CUDA allocator counts them, in units of 512 bytes."""
    found: Counter[Part] = Counter()
    for group in facts.modules:
        for part, sizes in _module(group, spec, dtypes).items():
            found[part] += group.count * sum(map(rounded, sizes) if charged else sizes)
    return dict(found)


def _module(group: ModuleGroup, spec: QuantizationSpec, dtypes: Dtypes) -> dict[Part, tuple[int, ...]]:
    elements = group.weight_elements // group.count if group.count else 0
    if group.quantized and spec.kind != "none":
        sizes = four_bit(elements, spec) if spec.is_four_bit else eight_bit(elements, group.out_features)
    else:
        part = _PARTS.get(group.kind, "other")
        sizes = {part: (elements * (dtypes.table if part in ("embedding", "head") else dtypes.plain),)}
    if group.bias_elements:
        part = "norm" if group.kind == "norm" else "bias"
        sizes[part] = (*sizes.get(part, ()), group.bias_elements * dtypes.plain)
    return sizes


_PARTS: Mapping[str, Part] = {
    "linear": "plain_linear",
    "embedding": "embedding",
    "head": "head",
    "norm": "norm",
    "expert": "expert",
}
