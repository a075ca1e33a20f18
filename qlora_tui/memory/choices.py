"""What a run will really use where its configuration says "auto", decided without torch as the engine decides it."""

from dataclasses import dataclass
from typing import Literal

from qlora_tui.config.run import RunConfig
from qlora_tui.memory.device import Device
from qlora_tui.models.facts import DTYPE_BYTES

UNPAGED = {
    "paged_adamw_32bit": "adamw_torch",
    "paged_adamw_8bit": "adamw_bnb_8bit",
    "paged_lion_32bit": "lion_32bit",
    "paged_lion_8bit": "lion_8bit",
}
"""What a paged optimizer becomes on a CPU, where nothing can be paged."""


@dataclass(frozen=True, slots=True)
class Choices:
    on_gpu: bool
    weight_bytes: int
    """Bytes of one element of a weight that is not quantized, as loaded."""

    compute_bytes: int
    adapter_bytes: int
    attention: Literal["fused", "eager"]
    """fused: PyTorch's scaled dot product or flash attention, which never hold the scores of a whole layer."""

    optimizer: str
    checkpointing: bool | None
    """None: "auto", decided by what fits."""

    @property
    def stream_bytes(self) -> int:
        """Bytes of one element of the residual stream in the lean recipe."""
        return self.weight_bytes


def choose(config: RunConfig, device: Device) -> Choices:
    """The choices for a run on `device`."""
    on_gpu = device.kind == "cuda"
    weight = _weight_dtype(config, device)
    compute = _compute_dtype(config, device, weight)
    optimizer: str = config.training.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_32bit" if on_gpu else "adamw_torch"
    elif not on_gpu:
        optimizer = UNPAGED.get(optimizer, optimizer)
    wanted = config.training.gradient_checkpointing
    return Choices(
        on_gpu=on_gpu,
        weight_bytes=DTYPE_BYTES[weight],
        compute_bytes=DTYPE_BYTES[compute],
        adapter_bytes=DTYPE_BYTES[_adapter_dtype(config, on_gpu, weight, compute)],
        attention="eager" if config.model.attention == "eager" else "fused",
        optimizer=optimizer,
        checkpointing=None if wanted == "auto" else wanted == "on",
    )


def _weight_dtype(config: RunConfig, device: Device) -> str:
    if config.model.dtype != "auto":
        return config.model.dtype
    if config.adapter.kind == "full" or device.kind == "cpu":
        return "float32"
    return "bfloat16" if device.native_bf16 else "float16"


def _compute_dtype(config: RunConfig, device: Device, weight: str) -> str:
    half = "bfloat16" if device.native_bf16 else "float16"
    if not config.quantization.is_four_bit:
        return half if device.kind == "cuda" and weight == "float32" else weight
    if config.quantization.compute_dtype != "auto":
        return config.quantization.compute_dtype
    if device.kind == "cuda":
        return half
    return "bfloat16" if device.native_bf16 else "float32"


def _adapter_dtype(config: RunConfig, on_gpu: bool, weight: str, compute: str) -> str:
    if config.adapter.kind == "full":
        return weight
    return "bfloat16" if on_gpu and config.quantization.kind != "none" and compute == "bfloat16" else "float32"
