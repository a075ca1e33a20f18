"""The dispatch mode that notes when each tensor storage is made and when it is gone."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._meta_registrations import _create_grouped_mm_output_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qlora_tui.engine.simulation import scratch
from qlora_tui.engine.simulation.ledger import Ledger
from qlora_tui.engine.simulation.scratch import Gpu

_LOSS_PHASES = ("loss", "loss_backward")


class Tracker(TorchDispatchMode):
    """Writes a ledger of all that runs inside it. On data-less tensors it answers what would need data."""

    def __init__(self, ledger: Ledger, gpu: Gpu, *, answers: bool) -> None:
        """`answers`: tensors have no data, so a number read from one is 1 and a mask selects everything."""
        super().__init__()
        self.ledger = ledger
        self.operations = 0
        self.summed: torch.Size | None = None
        """Shape of a weight whose gradients autograd adds up: that of a trained embedding that is the head, too."""
        self._gpu = gpu
        self._answers = answers
        self._numbers: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._workspaces: set[str] = set()
        self.on_operation: Callable[[], None] = lambda: None
        """Called before each operation."""

    def number(self, tensor: torch.Tensor) -> int | None:
        """Of a tensor's storage in the ledger."""
        return self._numbers.get(id(tensor.untyped_storage()))

    def label(self, tensor: torch.Tensor | None, category: str) -> None:
        """Say what a tensor is, after it was made."""
        number = self.number(tensor) if tensor is not None else None
        if number is not None:
            self.ledger.births[number - 1].category = category

    def take_workspace(self, thread: str) -> None:
        """The matrix library's workspace of one thread, which is taken once and kept."""
        if thread not in self._workspaces:
            self._workspaces.add(thread)
            self.ledger.alloc(self._gpu.cublas_workspace_bytes, "scratch:cublas", (), "workspace")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.operations += 1
        name = func._schema.name
        self.on_operation()
        if self._answers:
            func, args, kwargs, answer = _without_data(name, func, args, kwargs)
            if answer is not None:
                return answer
        if name == "aten::add" and args[0].shape == self.summed and "backward" in self.ledger.phase:
            # Autograd adds in place, but beneath a dispatch mode it would make a third tensor.
            func = torch.ops.aten.add_.Tensor
        taken = []
        if self._gpu.multiprocessors:
            taken = self._take_scratch(name, args, kwargs)
        result = func(*args, **kwargs)
        dequantizing = name == "aten::_to_copy" and args[0].dtype == torch.int8
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, "dequantize" if dequantizing else name)
        for number in reversed(taken):
            self.ledger.free(number)
        return result

    def _take_scratch(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        needed = scratch.of_operation(name, args, kwargs, self._gpu)
        taken = [self.ledger.alloc(size, f"scratch:{what}", shape, category) for size, what, shape, category in needed]
        if name in scratch.MATMULS or (name == "bitsandbytes::gemm_4bit" and needed):
            self.take_workspace("backward" if "backward" in self.ledger.phase else "forward")
        return taken

    def _watch(self, tensor: torch.Tensor, name: str) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._numbers or tensor.device.type != "cpu":
            return
        number = self.ledger.alloc(storage.nbytes(), name, tuple(tensor.shape), self._category(name))
        self._numbers[key] = number
        self._watched[key] = weakref.ref(storage, partial(self._gone, key, number))

    def _gone(self, key: int, number: int, _: object) -> None:
        self._watched.pop(key, None)
        self._numbers.pop(key, None)
        self.ledger.free(number)

    def _category(self, name: str) -> str:
        if "dequantize" in name:
            return "dequantization"
        return "loss" if self.ledger.phase in _LOSS_PHASES else "activations"


def _without_data(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator to run instead where tensors have no data, or an answer in place of its result."""
    if name == "aten::_local_scalar_dense":
        dtype = args[0].dtype
        return func, args, kwargs, True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
    if name == "aten::index" and len(args[1]) == 1 and args[1][0] is not None and args[1][0].dtype == torch.bool:
        # Every position is selected: the most a mask of scored tokens can do.
        mask = args[1][0]
        kept = args[0].shape[mask.dim() :]
        return torch.ops.aten.clone.default, (args[0].reshape(mask.numel(), *kept),), {}, None
    if name in _EIGHT_BIT:
        return _EIGHT_BIT[name], args, kwargs, None
    if name == "aten::_grouped_mm" and args[0].dtype != torch.bfloat16:
        # PyTorch's own shape function refuses what a GPU multiplies group by group (ATen/native/GroupedMMUtils.h).
        return _grouped_product, args, kwargs, None
    return func, args, kwargs, None


def _grouped_product(first: torch.Tensor, second: torch.Tensor, offsets: torch.Tensor, *_: Any) -> torch.Tensor:
    return _create_grouped_mm_output_tensor(first, second, offsets, first.dtype)


def _quantized_rows(first: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, ...]:
    """bitsandbytes' `int8_vectorwise_quant` when no column exceeds the threshold."""
    rows = first.numel() // first.shape[-1]
    outliers = first.new_empty(0, dtype=torch.int64)
    return torch.empty(first.shape, dtype=torch.int8), torch.empty(rows, dtype=torch.float32), outliers


def _eight_bit_product(
    first: torch.Tensor, packed: torch.Tensor, weight: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """bitsandbytes' `int8_mixed_scaled_mm` for the same rows."""
    return first.new_empty(*packed.shape[:-1], weight.shape[0]), first.new_empty(0)


_EIGHT_BIT = {
    "bitsandbytes::int8_vectorwise_quant": _quantized_rows,
    "bitsandbytes::int8_mixed_scaled_mm": _eight_bit_product,
}
"""Their own shape functions leave the number of outliers open, which a mode without symbols refuses."""
