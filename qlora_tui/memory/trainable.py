"""What is trained, tensor by tensor, and the state that each optimizer keeps for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.memory.allocator import rounded
from qlora_tui.memory.targets import Target, is_saved, paths, targets
from qlora_tui.models.facts import ModelFacts, ModuleGroup

PAGED_ELEMENTS = 100_000
"""bitsandbytes pages only state tensors of at least so many elements."""

EIGHT_BIT_ELEMENTS = 4096
"""bitsandbytes keeps states of smaller tensors in 32 bits."""

_HEAD = "lm_head"
STATE_BLOCK = 256
CODE_BYTES = 1024
"""Of one table that 8-bit states are coded by."""


@dataclass(frozen=True, slots=True)
class Trained:
    """`count` trained tensors of one shape."""

    rows: int
    columns: int
    """1 for a vector."""

    count: int
    item_bytes: int
    embedding: bool = False

    @property
    def elements(self) -> int:
        """Of one tensor."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class State:
    """Optimizer state in bytes."""

    device_bytes: int = 0
    paged_bytes: int = 0
    """In CUDA managed memory: on the card while there is room, in RAM when there is not."""

    unpaged_tensors: int = 0
    """Trained tensors whose state is too small to be paged."""

    step_bytes: int = 0
    """Held only while the optimizer steps."""


def tensors(facts: ModelFacts, spec: AdapterSpec, adapter_bytes: int) -> list[Trained]:
    """All trained tensors: LoRA matrices, DoRA magnitudes, modules trained in full; or every weight."""
    if spec.kind == "full":
        return [each for group in facts.modules for each in _whole(group, adapter_bytes)]
    found: list[Trained] = []
    for target in targets(facts, spec):
        found += _matrices(target, spec, adapter_bytes)
    for group in facts.modules:
        if _is_saved(group, facts, spec):
            found += _whole(group, adapter_bytes)
    return found


def trains_head(facts: ModelFacts, spec: AdapterSpec) -> bool:
    """Whether the weight that words are scored with is trained in full."""
    return _trains(facts, spec, "embedding" if facts.tied else "head")


def trains_embedding(facts: ModelFacts, spec: AdapterSpec) -> bool:
    """Whether the embedding of the words is trained in full."""
    return _trains(facts, spec, "embedding")


def _trains(facts: ModelFacts, spec: AdapterSpec, kind: str) -> bool:
    tables = (group for group in facts.modules if group.kind == kind and group.shape[0] == facts.vocab_size)
    return any(spec.kind == "full" or _is_saved(group, facts, spec) for group in tables)


def _is_saved(group: ModuleGroup, facts: ModelFacts, spec: AdapterSpec) -> bool:
    names = [*paths(group), _HEAD] if _is_head(group, facts) else paths(group)
    return any(is_saved(path, spec.modules_to_save) for path in names)


def _is_head(group: ModuleGroup, facts: ModelFacts) -> bool:
    """Whether a group is the embedding that is the head, too: who trains one trains the other."""
    return facts.tied and group.kind == "embedding" and group.shape[0] == facts.vocab_size


def _matrices(target: Target, spec: AdapterSpec, item_bytes: int) -> list[Trained]:
    group, rank, count = target.group, target.rank, target.count
    inputs, outputs = group.in_features, group.out_features
    if group.kind == "expert":
        experts, outputs, inputs = group.shape
        rank *= experts * target.rank_factor
    elif group.kind != "linear":
        outputs, inputs = group.shape[-2:]
    pair = [Trained(rank, inputs, count, item_bytes), Trained(outputs, rank, count, item_bytes)]
    # DoRA's magnitudes stay float32: bfloat16 would swallow their small updates.
    return [*pair, Trained(outputs, 1, count, 4)] if spec.dora and group.kind == "linear" else pair


def _whole(group: ModuleGroup, item_bytes: int) -> list[Trained]:
    elements = group.weight_elements // max(group.count, 1)
    columns = group.shape[-1] if len(group.shape) > 1 else 1
    weight = Trained(elements // max(columns, 1), columns, group.count, item_bytes, embedding=group.kind == "embedding")
    return [weight, Trained(group.bias_elements, 1, group.count, item_bytes)] if group.bias_elements else [weight]


def total_bytes(trained: list[Trained], *, charged: bool = False) -> int:
    """Bytes of the trained tensors, and as much again for their gradients."""
    return sum(
        each.count * (rounded(each.elements * each.item_bytes) if charged else each.elements * each.item_bytes)
        for each in trained
    )


def parameters(trained: list[Trained]) -> int:
    return sum(each.count * each.elements for each in trained)


_MOMENTS: Mapping[str, int] = {
    "adamw_bnb_8bit": 2,
    "paged_adamw_32bit": 2,
    "paged_adamw_8bit": 2,
    "lion_32bit": 1,
    "lion_8bit": 1,
    "paged_lion_32bit": 1,
    "paged_lion_8bit": 1,
    "ademamix": 3,
    "ademamix_8bit": 3,
}
"""Values that an optimizer of bitsandbytes keeps for each weight."""


def is_coded(tensor: Trained) -> bool:
    """Whether an 8-bit optimizer keeps this tensor's state in 8 bits: not of small tensors, nor of embeddings."""
    return tensor.elements >= EIGHT_BIT_ELEMENTS and not tensor.embedding


def moments(optimizer: str) -> int:
    """Values that an optimizer keeps for each weight; 0 for those that keep none."""
    return _MOMENTS.get(optimizer, 2 if optimizer.startswith("adamw_torch") else 0)


def states(tensor: Trained, optimizer: str, *, on_gpu: bool) -> tuple[list[int], int]:
    """Bytes of each tensor that an optimizer keeps on the device for one trained tensor, and what it pages of it.

    PyTorch's AdamW keeps two moments in the dtype of the weight. bitsandbytes keeps float32 moments, or one byte with a
    float32 absmax for 256; tensors of less than 4,096 elements and embeddings stay in 32 bits, less than 100,000
    elements are never paged.
    """
    elements = tensor.elements
    if optimizer in ("adamw_torch", "adamw_torch_fused"):
        counter = [4] if on_gpu and optimizer == "adamw_torch_fused" else []
        return [*counter, *[elements * tensor.item_bytes] * 2], 0
    if optimizer == "sgd":
        return [], 0
    if optimizer == "adafactor":
        return [4 * tensor.rows, *([4 * tensor.columns] if tensor.columns > 1 else []), 4], 0
    values, coded = _MOMENTS[optimizer], "8bit" in optimizer and is_coded(tensor)
    absmax = [4 * -(-elements // STATE_BLOCK)] * values if coded else []
    moment_bytes = elements if coded else 4 * elements
    if on_gpu and optimizer.startswith("paged_") and elements >= PAGED_ELEMENTS:
        return absmax, values * moment_bytes
    return [*absmax, *[moment_bytes] * values], 0


def state(trained: list[Trained], optimizer: str, *, on_gpu: bool) -> State:
    """The optimizer's state, and what it holds while it steps: PyTorch's foreach step, the default on a GPU, a copy."""
    charge = rounded if on_gpu else int
    device = paged = unpaged = step = 0
    for each in trained:
        kept, pages = states(each, optimizer, on_gpu=on_gpu)
        device += each.count * sum(map(charge, kept))
        paged += each.count * pages
        unpaged += each.count * (on_gpu and optimizer.startswith("paged_") and not pages)
    if "8bit" in optimizer:
        device += min(_MOMENTS[optimizer], 2) * CODE_BYTES
    if optimizer == "adafactor":
        step = 8 * max((each.elements for each in trained), default=0)
    elif on_gpu and optimizer in ("adamw_torch", "sgd"):
        step = total_bytes(trained, charged=True)
    return State(device, paged, unpaged, step)
