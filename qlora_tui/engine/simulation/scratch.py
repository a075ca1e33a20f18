"""What CUDA kernels take for themselves, which no operator of the dispatcher shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch

from qlora_tui.memory.symbols import BLOCK

KIB = 1 << 10
Scratch = tuple[int, str, tuple[int | str, ...], str]
"""Bytes, name, (bytes of one element, dimensions...), category."""

MATMULS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that is imitated; the default is an RTX 3090."""

    multiprocessors: int = 82
    major: int = 8
    minor: int = 6

    @property
    def cublas_workspace_bytes(self) -> int:
        """One workspace per thread that multiplies matrices (ATen/cuda/CublasHandlePool.cpp)."""
        return 32 * KIB * KIB if self.major in (9, 10) else (4096 * 2 + 16 * 8) * KIB


DEFAULT_GPU = Gpu()


def of_operation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], gpu: Gpu) -> list[Scratch]:
    """Scratch that lives while the operator runs."""
    if name == "bitsandbytes::gemm_4bit":
        return _gemm_4bit(args, kwargs, gpu)
    if name in ("bitsandbytes::int8_vectorwise_quant", "bitsandbytes::int8_mixed_scaled_mm"):
        return _eight_bit(name, args, kwargs)
    if name == "aten::_scaled_dot_product_flash_attention_backward":
        return _flash_backward(args)
    if name == "aten::_scaled_dot_product_efficient_attention_backward":
        rows, heads, tokens, size = args[1].shape
        return [
            (rows * heads * tokens * size * 4, "query_gradient", (4, "B", "H", "S", "d"), "attention"),
            (rows * heads * tokens * 4, "delta", (4, "B", "H", "S"), "attention"),
        ]
    return []


def _gemm_4bit(args: tuple[Any, ...], kwargs: dict[str, Any], gpu: Gpu) -> list[Scratch]:
    activation, (out_features, in_features) = args[0], args[2]
    if uses_fused_gemm(activation.numel() // in_features, out_features, in_features, activation.dtype, gpu):
        return []
    elements = out_features * in_features
    constants = -(-elements // BLOCK)
    found: list[Scratch] = []
    if kwargs.get("absmax_8bit") is not None:
        found += [(constants * 4, "absmax", (constants,), "dequantization")] * 2
    item = activation.element_size()
    return [*found, (elements * item, "dequantized", (out_features, in_features), "dequantization")]


def _eight_bit(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Scratch]:
    """The kernels in bitsandbytes/backends/cuda/ops.py; the outliers themselves are few."""
    if name.endswith("quant"):
        if not kwargs.get("threshold", args[1] if len(args) > 1 else 0.0):
            return []
        shape = tuple(args[0].shape)
        elements = args[0].numel()
        return [
            (elements * args[0].element_size(), "magnitudes", shape, "activations"),
            (elements, "outliers", shape, "activations"),
        ]
    shape = (*args[1].shape[:-1], args[2].shape[0])
    elements = prod(shape)
    found: list[Scratch] = [(elements * 4, "product", shape, "activations")]
    if args[0].dtype != torch.float16:
        # The kernel that scales the product writes float16 alone.
        found.append((elements * 2, "scaled", shape, "activations"))
    return found


def _flash_backward(args: tuple[Any, ...]) -> list[Scratch]:
    query, key = args[1], args[2]
    rows, heads, tokens, size = query.shape
    padded, item = -(-tokens // 128) * 128, query.element_size()
    found: list[Scratch] = [
        (rows * heads * padded * 4, "softmax_d", (4, "B", "H", "S128"), "attention"),
        (
            rows * heads * padded * (-(-size // 32) * 32) * 4,
            "query_gradient",
            (4, "B", "H", "S128", "d32"),
            "attention",
        ),
    ]
    if key.shape[1] != heads:
        expanded: Scratch = (
            rows * key.shape[2] * heads * size * item,
            "expanded_key_gradient",
            (item, "B", "S", "H", "d"),
            "attention",
        )
        found += [expanded, expanded]
    return found


_fused_allowed = True


@contextmanager
def always_dequantize() -> Iterator[None]:
    """As on long sequences: weights are dequantized for every product, whatever the size of the miniature."""
    global _fused_allowed
    _fused_allowed = False
    try:
        yield
    finally:
        _fused_allowed = True


def uses_fused_gemm(tokens: int, out_features: int, in_features: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Whether bitsandbytes multiplies straight from 4 bits there, by its own rule for the GPU."""
    rule, most_tokens = _fused_rule(gpu)
    if not _fused_allowed or tokens > most_tokens or in_features % BLOCK:
        return False
    return bool(rule(0, dtype, tokens, out_features, in_features))


@cache
def _fused_rule(gpu: Gpu) -> tuple[Callable[..., Any], int]:
    # A build of PyTorch without CUDA lacks a name that the module looks up as it is imported.
    lacking = not hasattr(torch._C, "_cuda_getCurrentRawStream")
    if lacking:
        torch._C._cuda_getCurrentRawStream = None
    try:
        import bitsandbytes.backends.cuda.ops as cuda_ops
    finally:
        if lacking:
            del torch._C._cuda_getCurrentRawStream

    def rule(*arguments: Any) -> Any:
        asked = cuda_ops._gpu_dispatch_props
        cuda_ops._gpu_dispatch_props = lambda index: (gpu.multiprocessors, gpu.major, gpu.minor)
        cuda_ops._gemm_4bit_use_custom_cuda.cache_clear()
        try:
            return cuda_ops._gemm_4bit_use_custom_cuda(*arguments)
        finally:
            cuda_ops._gpu_dispatch_props = asked

    return rule, cuda_ops._gemm_4bit_custom_max_m
