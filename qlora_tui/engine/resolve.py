"""Every "auto" of the configuration turned into a value, with the reason."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers.utils import is_flash_attn_2_available

from qlora_tui import hardware
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import preflight
from qlora_tui.errors import EnvironmentProblem
from qlora_tui.memory.choices import UNPAGED
from qlora_tui.memory.stored_estimate import Longest
from qlora_tui.runs.events import Resolved

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Because = Callable[[str, object, str], None]
"""Notes one decision: dotted field, value, reason."""


@dataclass(slots=True)
class Settings:
    """What a run really uses."""

    device: torch.device
    dtype: torch.dtype
    """Of base weights that are not quantized."""
    compute_dtype: torch.dtype
    """In which 4-bit weights are multiplied, and of autocast on a GPU."""
    adapter_dtype: torch.dtype
    attention: str
    optimizer: str
    gradient_checkpointing: bool
    reasons: list[Resolved] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    float32_modules: bool = False
    """Whether modules of the base are trained in full, in float32, among others in bfloat16."""

    @property
    def autocast_bf16(self) -> bool:
        mixed = self.device.type == "cuda" or (self.float32_modules and self.dtype == torch.bfloat16)
        return mixed and self.compute_dtype == torch.bfloat16

    @property
    def autocast_fp16(self) -> bool:
        return self.device.type == "cuda" and self.compute_dtype == torch.float16


def resolve(config: RunConfig, longest: Longest | None = None) -> Settings:
    """Decide by the hardware of this machine. Raises EnvironmentProblem when CUDA is requested but missing.

    `longest`: the longest rows of the data, where they were counted before the start.
    """
    reasons: list[Resolved] = []

    def because(key: str, value: object, reason: str) -> None:
        reasons.append(Resolved(field=key, value=str(value).removeprefix("torch."), reason=reason))

    device = _device(config, reasons)
    dtype = _dtype(config, device, because)
    compute_dtype = _compute_dtype(config, device, dtype, because)
    settings = Settings(
        device=device,
        dtype=dtype,
        compute_dtype=compute_dtype,
        adapter_dtype=_adapter_dtype(config, device, dtype, compute_dtype),
        attention=_attention(config, device, dtype, because),
        optimizer=_optimizer(config, device, because),
        gradient_checkpointing=config.training.gradient_checkpointing == "on",
        reasons=reasons,
        float32_modules=bool(config.adapter.modules_to_save) and config.adapter.kind == "lora",
    )
    if config.training.gradient_checkpointing == "auto":
        settings.gradient_checkpointing, reason = preflight.checkpointing(config, settings, longest)
        because("training.gradient_checkpointing", "on" if settings.gradient_checkpointing else "off", reason)
    if settings.compute_dtype == torch.float16:
        settings.warnings.append(
            "some runs diverge in float16; watch the gradient norm, or use bfloat16 where there is"
        )
    if settings.adapter_dtype == torch.bfloat16 and settings.optimizer in ("adamw_torch", "adamw_torch_fused"):
        settings.warnings.append(
            f"training.optimizer = {settings.optimizer} keeps its moments in the adapter's bfloat16, too coarse for "
            f"adam_beta2 = {config.training.adam_beta2}; paged_adamw_32bit keeps them in float32"
        )
    return settings


def resolve_to_train(config: RunConfig, longest: Longest | None = None) -> Settings:
    """The same, held to what can be trained on the device that "auto" became. Raises ConfigError too."""
    settings = resolve(config, longest)
    edited(config, [f"model.device={settings.device.type}"])
    return settings


def _device(config: RunConfig, reasons: list[Resolved]) -> torch.device:
    wanted, gpus = config.model.device, hardware.snapshot().gpus
    if wanted == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if wanted == "cuda":
            raise EnvironmentProblem(
                'model.device is "cuda", but PyTorch finds no CUDA device',
                hint='Run `qlora-tui doctor`, or set model.device = "cpu".',
            )
        if gpus:
            raise EnvironmentProblem(
                f"PyTorch cannot use this machine's GPU ({gpus[0].name}), so the model would go to the CPU",
                hint='`qlora-tui doctor` says why. To use the CPU all the same: model.device = "cpu", or --device cpu.',
            )
        reasons.append(Resolved(field="model.device", value="cpu", reason="no CUDA device"))
        return torch.device("cpu")
    if gpus:
        reason = f"GPU {gpus[0].index}, {gpus[0].name}, the one with the most free memory"
        reasons.append(Resolved(field="model.device", value="cuda", reason=reason, gpu_uuid=gpus[0].uuid))
    elif wanted == "auto":
        reasons.append(Resolved(field="model.device", value="cuda", reason=torch.cuda.get_device_name(0)))
    return torch.device("cuda", 0)


def _dtype(config: RunConfig, device: torch.device, because: Because) -> torch.dtype:
    if config.model.dtype != "auto":
        return _DTYPES[config.model.dtype]
    if config.adapter.kind == "full":
        because("model.dtype", torch.float32, "full finetuning keeps float32 weights")
        return torch.float32
    if device.type == "cpu":
        because("model.dtype", torch.float32, "CPU")
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        because("model.dtype", torch.bfloat16, "the GPU has bfloat16")
        return torch.bfloat16
    because("model.dtype", torch.float16, "the GPU has no bfloat16")
    return torch.float16


def _compute_dtype(config: RunConfig, device: torch.device, dtype: torch.dtype, because: Because) -> torch.dtype:
    native_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if not config.quantization.is_four_bit:
        if device.type == "cpu" or dtype != torch.float32:
            return dtype
        return torch.bfloat16 if native_gpu else torch.float16
    if config.quantization.compute_dtype != "auto":
        return _DTYPES[config.quantization.compute_dtype]
    if device.type == "cuda":
        native = native_gpu
        value = torch.bfloat16 if native else torch.float16
        because("quantization.compute_dtype", value, f"the GPU has {'' if native else 'no '}bfloat16")
        return value
    native = hardware.cpu_has_native_bf16()
    value = torch.bfloat16 if native else torch.float32
    because("quantization.compute_dtype", value, f"the CPU has {'' if native else 'no '}native bfloat16")
    return value


def _adapter_dtype(
    config: RunConfig, device: torch.device, dtype: torch.dtype, compute_dtype: torch.dtype
) -> torch.dtype:
    """bfloat16 beside quantized weights on a GPU that has it (TRL 1.16, and qlora.py's dtype pass), else float32.

    float16 adapters are never trained: the gradient scaler needs float32 ones.
    """
    if config.adapter.kind == "full":
        return dtype
    if device.type == "cuda" and config.quantization.kind != "none" and compute_dtype == torch.bfloat16:
        return torch.bfloat16
    return torch.float32


def _attention(config: RunConfig, device: torch.device, dtype: torch.dtype, because: Because) -> str:
    wanted = config.model.attention
    if wanted != "auto":
        return wanted
    if device.type == "cuda" and dtype != torch.float32 and _has_flash_attention():
        because("model.attention", "flash_attention_2", "flash-attn is installed")
        return "flash_attention_2"
    because("model.attention", "sdpa", "PyTorch's own fused attention")
    return "sdpa"


def _has_flash_attention() -> bool:
    """flash-attn is installed, and the GPU is new enough for it (Ampere or later)."""
    return is_flash_attn_2_available() and torch.cuda.get_device_capability(0) >= (8, 0)


def _optimizer(config: RunConfig, device: torch.device, because: Because) -> str:
    wanted = config.training.optimizer
    if wanted == "auto":
        value = "adamw_torch" if device.type == "cpu" else "paged_adamw_32bit"
        because(
            "training.optimizer", value, "CPU" if device.type == "cpu" else "its states leave the GPU under pressure"
        )
        return value
    if device.type == "cpu" and wanted in UNPAGED:
        because("training.optimizer", UNPAGED[wanted], f"{wanted} can page only on CUDA")
        return UNPAGED[wanted]
    return wanted
