"""The optimizer's states, as each optimizer allocates them. The optimizers themselves need data, so they do not run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

PAGED_ELEMENTS = 100_000
"""bitsandbytes pages the states of tensors of at least so many elements."""

EIGHT_BIT_ELEMENTS = 4096
"""bitsandbytes keeps the states of smaller tensors in 32 bits."""

EIGHT_BIT_BLOCK = 256

_STATES = {"adamw": 2, "lion": 1, "ademamix": 3}


@dataclass(slots=True)
class OptimizerStates:
    tensors: list[torch.Tensor] = field(default_factory=list)
    paged_bytes: int = 0
    """In CUDA managed memory, which may leave the GPU."""

    copies_weights: bool = False
    """Whether a step holds one more copy of every trained weight (foreach implementations)."""


def states(optimizer: str, weights: list[torch.Tensor], embeddings: Sequence[torch.Tensor] = ()) -> OptimizerStates:
    """All states of `optimizer` (a name of transformers) for the trained weights. `embeddings`: those of embeddings."""
    if optimizer in ("adamw_torch", "adamw_torch_fused"):
        found = OptimizerStates([torch.zeros_like(weight) for weight in weights for _ in range(2)])
        # torch's implementations count steps in a float32 each; only the fused one has the count on the GPU.
        if optimizer.endswith("fused"):
            found.tensors += [torch.zeros(()) for _ in weights]
        found.copies_weights = not optimizer.endswith("fused")
        return found
    if optimizer == "sgd":
        return OptimizerStates()
    if optimizer == "adafactor":
        return OptimizerStates([torch.zeros(side) for weight in weights for side in weight.shape])
    return _bitsandbytes(optimizer, weights, {id(weight) for weight in embeddings})


def _bitsandbytes(optimizer: str, weights: list[torch.Tensor], embeddings: set[int]) -> OptimizerStates:
    found = OptimizerStates()
    count = next(count for name, count in _STATES.items() if name in optimizer)
    eight_bit, paged = "8bit" in optimizer, optimizer.startswith("paged")
    for weight in weights:
        elements = weight.numel()
        # transformers keeps embeddings in 32 bits by `GlobalOptimManager.register_module_override`.
        small = eight_bit and elements >= EIGHT_BIT_ELEMENTS and id(weight) not in embeddings
        dtype = torch.uint8 if small else torch.float32
        if paged and elements >= PAGED_ELEMENTS:
            found.paged_bytes += count * elements * dtype.itemsize
        else:
            found.tensors += [torch.zeros(weight.shape, dtype=dtype) for _ in range(count)]
        if small:
            found.tensors += [torch.zeros(-(-elements // EIGHT_BIT_BLOCK)) for _ in range(count)]
    if eight_bit:
        found.tensors += [torch.zeros(256) for _ in range(2)]
    return found
