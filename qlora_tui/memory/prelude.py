"""Loading and preparing as allocations and frees: what a training step finds in the allocator's cache."""

from collections.abc import Iterator

from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.memory import stored
from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.stored import Dtypes
from qlora_tui.memory.trainable import Trained, states
from qlora_tui.models.facts import ModelFacts, ModuleGroup

_TABLES = ("embedding", "head")


def prelude(
    facts: ModelFacts, spec: QuantizationSpec, loaded: Dtypes, prepared: Dtypes, adapter: list[Trained]
) -> Trace:
    """The base model quantized as it loads, made ready, and given its adapter. `prepared`: dtypes in training.

    `adapter`: its weights, none in full finetuning.
    """
    trace = Trace()
    plain: list[tuple[ModuleGroup, int]] = []
    for group in _in_order(facts):
        elements = group.weight_elements // group.count
        if group.quantized and spec.kind != "none":
            if spec.is_four_bit:
                _quantize(trace, elements, spec, loaded.plain)
            else:
                _quantize_to_eight_bits(trace, elements, group.out_features, loaded.plain)
            if group.bias_elements:
                trace.alloc(group.bias_elements * prepared.plain)
        else:
            plain.append((group, trace.alloc((elements + group.bias_elements) * loaded.plain)))
    if prepared != loaded:
        plain = [(group, _cast(trace, group, held, 4)) for group, held in plain]
    made = _adapt(trace, adapter, loaded.plain)
    if prepared != loaded and prepared.table != 4:
        for group, held in plain:
            if group.kind in _TABLES:
                _cast(trace, group, held, prepared.table)
    for weight, held in made:
        if weight.item_bytes < 4:
            _recast(trace, weight, held, weight.item_bytes)
    return trace


def optimizer_states(trace: Trace, trained: list[Trained], optimizer: str) -> None:
    """Append the optimizer's states, in the order of the model's weights."""
    kept = [(weight.count, states(weight, optimizer, on_gpu=True)[0]) for weight in trained]
    for layer in range(max((count for count, _ in kept), default=0)):
        for size in (size for count, sizes in kept if layer < count for size in sizes):
            trace.alloc(size)


def _in_order(facts: ModelFacts) -> Iterator[ModuleGroup]:
    """Each module as it comes while loading: tables, layer after layer, and the rest."""
    of_layers = [group for group in facts.modules if "*" in group.name]
    rest = [group for group in facts.modules if "*" not in group.name]
    yield from (group for group in rest if group.kind == "embedding")
    for layer in range(max((group.count for group in of_layers), default=0)):
        yield from (group for group in of_layers if layer < group.count)
    yield from (group for group in rest if group.kind != "embedding")


def _quantize(trace: Trace, elements: int, spec: QuantizationSpec, item_bytes: int) -> None:
    blocks = -(-elements // stored.BLOCK)
    whole = trace.alloc(elements * item_bytes)
    parts = stored.four_bit(elements, spec)
    trace.alloc(*parts.pop("packed"))
    absmax = [trace.alloc(4 * blocks) for _ in range(2)] if spec.double_quantization else []
    for size in (size for sizes in parts.values() for size in sizes):
        trace.alloc(size)
    for tensor in (*absmax, whole):
        trace.free(tensor)


def _quantize_to_eight_bits(trace: Trace, elements: int, outputs: int, item_bytes: int) -> None:
    whole, half = trace.alloc(elements * item_bytes), trace.alloc(2 * elements)
    for size in (size for sizes in stored.eight_bit(elements, outputs).values() for size in sizes):
        trace.alloc(size)
    for tensor in (half, whole):
        trace.free(tensor)


def _adapt(trace: Trace, adapter: list[Trained], narrow_bytes: int) -> list[tuple[Trained, int]]:
    """PEFT makes both matrices of each adapted weight in float32, casts them to the weight's dtype, and back."""
    pairs = list(zip(adapter[::2], adapter[1::2], strict=False))
    made: list[tuple[Trained, int]] = []
    for layer in range(max((weight.count for weight in adapter), default=0)):
        for pair in (pair for pair in pairs if layer < pair[0].count):
            wide = [(weight, trace.alloc(4 * weight.elements)) for weight in pair]
            made += [
                _recast(trace, weight, held, narrow_bytes) if narrow_bytes < 4 else (weight, held)
                for weight, held in wide
            ]
    return [_recast(trace, weight, held, 4) if narrow_bytes < 4 else (weight, held) for weight, held in made]


def _recast(trace: Trace, weight: Trained, held: int, item_bytes: int) -> tuple[Trained, int]:
    cast = trace.alloc(item_bytes * weight.elements)
    trace.free(held)
    return weight, cast


def _cast(trace: Trace, group: ModuleGroup, held: int, item_bytes: int) -> int:
    """The weights of one module in another dtype. Returns the new tensor's number."""
    made = trace.alloc((group.weight_elements // group.count + group.bias_elements) * item_bytes)
    trace.free(held)
    return made
