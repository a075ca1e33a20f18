"""Makes a process without a GPU take the paths that the libraries take on one, and puts everything back."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import accelerate.accelerator
import bitsandbytes.functional
import peft.tuners.lora.dora
import torch
import torch.cuda.amp.common
import torch.nn.functional
import torch.utils.checkpoint
import transformers.masking_utils
import trl.trainer.utils
from bitsandbytes.autograd import _functions

aten = torch.ops.aten
_FLASH_HEAD_LIMIT = 256
_FLASH_HEAD_MULTIPLE = 8
"""To which PyTorch pads the heads it gives the flash kernel."""

_HALF = (torch.float16, torch.bfloat16)


class BothAutocasts(ContextDecorator):
    """autocast as it stands on a GPU. CPU tensors need the CPU's to be cast; libraries ask for the GPU's."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._stack: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(torch.autocast("cuda", dtype=self._dtype))
        stack.enter_context(torch.autocast("cpu", dtype=self._dtype))
        self._stack.append(stack)

    def __exit__(self, *problem: Any) -> None:
        self._stack.pop().__exit__(*problem)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """What PyTorch picks on Ampere and newer: the flash kernel without a mask, the memory-efficient one with one."""
    if torch.is_autocast_enabled("cuda") and query.dtype == torch.float32:
        query, key, value = (tensor.to(torch.get_autocast_dtype("cuda")) for tensor in (query, key, value))
    # The flash kernel refuses heads whose values are smaller, as those of DeepSeek's latent attention
    # (check_head_dim_size_flash in ATen/native/transformers/cuda/sdp_utils.cpp); the memory-efficient one takes them.
    size, flash_head = query.shape[-1], query.shape[-1] == key.shape[-1] == value.shape[-1] <= _FLASH_HEAD_LIMIT
    if query.dtype in _HALF and attn_mask is None and flash_head:
        if missing := -size % _FLASH_HEAD_MULTIPLE:
            query, key, value = (torch.nn.functional.pad(tensor, (0, missing)) for tensor in (query, key, value))
        found = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
        return found[..., :size] if missing else found
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        zero, minus = (torch.full((), number, dtype=query.dtype, device=query.device) for number in (0.0, -torch.inf))
        attn_mask = torch.where(attn_mask, zero, minus)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    needs_grad = query.requires_grad or key.requires_grad or value.requires_grad
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_grad, dropout_p, is_causal, scale=scale
    )[0]


def _dropout(tensor: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return aten.native_dropout(tensor, p, training)[0] if training and p > 0 else tensor


class _Kernel:
    """In the place of a Triton kernel, which allocates nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _accumulate(target: Any, first: Any, second: Any) -> None:
    """In the place of a matrix product that adds into its target without a copy."""
    target.add_(1.0)


def _apply(module: Any, change: Callable[[Any], Any], recurse: bool = True) -> Any:
    """`Module._apply` as it treats GPU tensors: tensors without data it would try to swap, which fails."""
    if recurse:
        for child in module.children():
            child._apply(change)
    for parameter in module._parameters.values():
        if parameter is not None:
            with torch.no_grad():
                parameter.data = change(parameter.data)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def _sequence_numbers(position_ids: Any) -> Any:
    """transformers' `find_packed_sequence_indices` for positions that start anew somewhere."""
    before_first = position_ids[:, :1] - 1
    return (torch.diff(position_ids, prepend=before_first, dim=-1) != 1).cumsum(-1)


def _dequantized(module: Any) -> Any:
    """PEFT's `dequantize_module_weight`, which knows a quantized weight by the name of its class."""
    weight, state = module.weight, getattr(module.weight, "quant_state", None)
    if weight.dtype == torch.int8:
        return bitsandbytes.functional.int8_vectorwise_dequant(weight.data, module.state.SCB)
    return weight if state is None else bitsandbytes.functional.dequantize_4bit(weight.data, state)


@contextmanager
def cuda_paths(*, padded: bool, autocast: torch.dtype | None, packed: bool = False) -> Iterator[None]:
    """Inside it CPU tensors are treated as a GPU's.

    `padded`: some row of the batch has padding, so attention gets a mask. `packed`: a sequence holds several rows, so
    it gets one, too. `autocast`: the dtype of mixed precision.
    """
    replaced = _replaced(padded, packed)
    if autocast is not None:
        replaced.append(
            (accelerate.accelerator, "get_mixed_precision_context_manager", lambda *args: BothAutocasts(autocast))
        )
    missing = object()
    before = [(owner, name, getattr(owner, name, missing)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def _replaced(padded: bool, packed: bool) -> list[tuple[Any, str, Any]]:
    """What stands in the place of what: module or class, name, value."""
    loss, masking = sys.modules["trl.kernels.chunked_logprob"], transformers.masking_utils
    return [
        (_functions, "MatMul8bitFp", _functions.MatMul8bitLt),
        (torch.nn.functional, "scaled_dot_product_attention", scaled_dot_product_attention),
        (torch.nn.functional, "dropout", _dropout),
        (torch.nn.Module, "_apply", _apply),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True),
        (torch.amp, "is_autocast_available", lambda device: True),
        (torch.utils.checkpoint, "_infer_device_type", lambda *args: "cuda"),
        (masking, "find_packed_sequence_indices", _sequence_numbers if packed else lambda *args, **kwargs: None),
        (masking, "is_tracing", lambda tensor=None: False),
        (masking, "fast_all", lambda mask: not padded),
        (peft.tuners.lora.dora, "dequantize_module_weight", _dequantized),
        (loss, "_use_triton", lambda device: True),
        (trl.trainer.utils, "_use_triton", lambda device: True),
        (loss, "_forward_kernel", _Kernel()),
        (loss, "_backward_kernel", _Kernel()),
        (loss, "triton", SimpleNamespace(cdiv=lambda a, b: -(-a // b))),
        (loss, "_addmm_fp32", _accumulate),
    ]
