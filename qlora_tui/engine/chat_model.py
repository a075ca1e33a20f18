"""The model of a finished run, or of a checkpoint, ready to chat: loaded as it was trained, fast at one token."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors import SafetensorError

from qlora_tui import hardware
from qlora_tui.chat.protocol import Ready, Side
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import foreign_tokenizer, loading
from qlora_tui.engine.oom import is_out_of_memory
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.resolve import Settings, resolve
from qlora_tui.errors import ModelError, OutOfMemoryError, RunConflictError
from qlora_tui.runs.damage import check_adapter
from qlora_tui.runs.fingerprint import has_other_base, pinned
from qlora_tui.runs.store import RunFolder
from qlora_tui.units import memory

Say = Callable[[str], None]

_SPARE = 1.2
"""Free memory wanted for a dense copy, as a multiple of its size."""

_UNLIMITED_TOKENS = 1_000_000
"""Context of a model that states none; tokenizers write absurd numbers for "no limit"."""


@dataclass(frozen=True, slots=True)
class Loaded:
    model: Any
    prompts: Prompts
    ready: Ready

    @property
    def tokenizer(self) -> Any:
        return self.prompts.tokenizer


class DenseLinear(torch.nn.Linear):
    """A linear layer that multiplies in its weight's dtype, as bitsandbytes' 4-bit layer does in its compute dtype."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (the name in the base class)
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def load(
    run: RunFolder,
    *,
    checkpoint: int | None,
    device: Literal["auto", "cpu", "cuda"],
    on_stage: Say,
    on_notice: Say,
    base_only: bool = False,
) -> Loaded:
    """Load base and adapter once, or the base alone.

    Raises ModelError, OutOfMemoryError, RunConflictError, or EnvironmentProblem.
    """
    config = _on_device(pinned(run, run.load_config()), device)
    folder = run.adapter if checkpoint is None else run.checkpoints / f"checkpoint-{checkpoint}"
    if checkpoint is not None and config.adapter.init == "pissa":
        raise RunConflictError(
            "a PiSSA checkpoint fits only the base that PiSSA changed, which is not stored",
            hint="Chat with the finished adapter, which fits the unchanged base.",
        )
    if config.adapter.kind != "full" and has_other_base(run, config):
        on_notice(f"the weights of {config.model.id} have changed since {run.name} was trained: answers will differ")
    if checkpoint is None and not base_only:
        check_adapter(run, folder)
    try:
        return _load(config, chat_settings(config), None if base_only else folder, on_stage, on_notice)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{config.model.id} does not fit in the free memory", hint="Stop other programs, or try --device cpu."
            ) from error
        raise


def _on_device(config: RunConfig, device: Literal["auto", "cpu", "cuda"]) -> RunConfig:
    """A run trained on the CPU stays there unless told otherwise; others take what this machine has."""
    if device == "auto" and config.model.device == "cpu":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"device": device})})


def chat_settings(config: RunConfig) -> Settings:
    """What the run was trained with, except on a CPU: there float32, where bfloat16 is asked for but not native."""
    settings = resolve(config)
    if settings.device.type == "cpu":
        settings.dtype = _cpu_dtype(settings.dtype)
        settings.compute_dtype = _cpu_dtype(settings.compute_dtype)
        settings.attention = "eager" if settings.attention == "eager" else "sdpa"
    return settings


def _cpu_dtype(dtype: torch.dtype) -> torch.dtype:
    native = dtype == torch.bfloat16 and hardware.cpu_has_native_bf16()
    return torch.bfloat16 if native else torch.float32


def _load(config: RunConfig, settings: Settings, folder: Path | None, on_stage: Say, on_notice: Say) -> Loaded:
    """`folder` holds the adapter, or the whole model of a full finetune; None for the base alone."""
    tokenizer = _base_tokenizer(config) if folder is None else load_tokenizer(folder, config)
    where = str(settings.device)
    if folder is not None and config.adapter.kind == "full":
        sides: tuple[Side, ...] = ("adapter",)
        own = config.model.model_copy(update={"id": str(folder), "revision": None})
        on_stage(f"loading the trained model on {where}")
        model = loading.load_model(config.model_copy(update={"model": own}), settings, tokenizer)
    else:
        kind = config.quantization.kind
        on_stage(f"loading {config.model.id}{'' if kind == 'none' else f' as {kind}'} on {where}")
        model = loading.load_model(config, settings, tokenizer)
        _make_fast(model, settings, on_stage, on_notice)
        sides = ("base",)
        if folder is not None:
            on_stage("loading the adapter")
            model = _attach(model, folder, settings)
            sides = ("base", "adapter")
    model.eval()
    ready = Ready(
        model=config.model.id,
        device=where,
        sides=sides,
        context_max_tokens=context_max_tokens(model, tokenizer),
    )
    trained = None if folder is None else config.data
    return Loaded(model, Prompts.of(tokenizer, trained), ready)


def load_tokenizer(folder: Path, config: RunConfig) -> Any:
    """The tokenizer saved with the adapter, which has the chat template of the training. Raises ModelError."""
    tokenizer = foreign_tokenizer.load(
        folder, name=str(folder), trust_remote_code=config.model.trust_remote_code, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer in {folder} has no chat template", hint="Its files may be damaged.")
    loading.ensure_pad_token(tokenizer)
    return tokenizer


def _base_tokenizer(config: RunConfig) -> Any:
    tokenizer = loading.load_tokenizer(config.model)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{config.model.id} has no chat template, so it cannot be asked anything",
            hint="Choose a model that was made for conversations, or train it first.",
        )
    return tokenizer


def _attach(model: Any, folder: Path, settings: Settings) -> Any:
    try:
        # Left to itself PEFT picks a GPU for the weights even beside a model on the CPU, and widens bfloat16 ones.
        return PeftModel.from_pretrained(
            model, str(folder), torch_device=str(settings.device), autocast_adapter_dtype=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the adapter in {folder} cannot be loaded: {first}", hint="Its files may be damaged."
        ) from error


def _make_fast(model: Any, settings: Settings, on_stage: Say, on_notice: Say) -> None:
    """Dequantize 4-bit weights on a CPU, where a 4-bit layer takes about ten times as long for one token."""
    if settings.device.type != "cpu":
        return
    need_bytes = dense_bytes(model, settings.compute_dtype)
    free_bytes = psutil.virtual_memory().available
    if not need_bytes:
        return
    if free_bytes < need_bytes * _SPARE:
        on_notice(
            f"answers will be slow: {memory(need_bytes)} are needed to dequantize the weights, "
            f"and {memory(free_bytes)} are free"
        )
        return
    on_stage("dequantizing the weights")
    dequantize(model, settings.compute_dtype)
    on_notice(f"weights dequantized once for speed, values unchanged: {memory(need_bytes)}")


def dense_bytes(model: Any, dtype: torch.dtype) -> int:
    """Bytes that the weights of all 4-bit layers take in `dtype`."""
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    return sum(layer.in_features * layer.out_features * dtype.itemsize for layer in layers)


@torch.no_grad()
def dequantize(model: Any, dtype: torch.dtype) -> None:
    """Put a dense layer in the place of every 4-bit one, with the values that the 4-bit layer multiplies by in `dtype`.

    Must run before the model's first forward pass: on some CPUs that repacks the 4-bit weights.
    """
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, Linear4bit):
            continue
        dense = DenseLinear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
        dense.weight = torch.nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            dense.bias = torch.nn.Parameter(layer.bias.to(dtype), requires_grad=False)
        model.set_submodule(name, dense)


def context_max_tokens(model: Any, tokenizer: Any) -> int:
    """The longest sequence that model and tokenizer are both made for."""
    of_model = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED_TOKENS
    return int(min(of_model, tokenizer.model_max_length, _UNLIMITED_TOKENS))
