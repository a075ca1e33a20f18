"""Which weights are trained: LoRA matrices put beside frozen weights, or all of them."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training, replace_lora_weights_loftq

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.engine.resolve import Settings
from qlora_tui.errors import EnvironmentProblem, ModelError
from qlora_tui.models.folder import location

PISSA_ITERATIONS = 16
"""Subspace iterations of the fast SVD; PEFT documents 16 as accurate enough for PiSSA."""


def lora_config(spec: AdapterSpec) -> LoraConfig:
    """PEFT's configuration of our adapter."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.target_modules,
        use_rslora=spec.rank_stabilized,
        use_dora=spec.dora,
        init_lora_weights=f"pissa_niter_{PISSA_ITERATIONS}" if spec.init == "pissa" else True,
        modules_to_save=spec.modules_to_save or None,
        bias="none",
    )


def attach(model: Any, config: RunConfig, settings: Settings) -> Any:
    """The model ready to train. Raises ModelError when the target modules name nothing in it."""
    spec = config.adapter
    if spec.kind == "full":
        return model
    if config.training.recipe == "original" and config.quantization.kind != "none":
        # Checkpointing is switched on by the trainer, so only the dtype part of the preparation is wanted here.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        model = get_peft_model(model, lora_config(spec))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"adapter.target_modules = {spec.target_modules!r} does not fit {config.model.id}: {first}",
            hint=f"Linear layers of this model: {', '.join(sorted(linear_names(model)))}.",
        ) from error
    if spec.init == "loftq":
        if settings.device.type == "cpu":
            raise EnvironmentProblem(
                "adapter.init = loftq needs a CUDA device: PEFT computes it there",
                hint='Set adapter.init = "default", or train on a GPU.',
            )
        replace_lora_weights_loftq(model, model_path=_weights_file(config))
    if config.training.recipe == "original":
        _original_dtypes(model, settings)
    set_adapter_dtype(model, settings.adapter_dtype)
    return model


def linear_names(model: Any) -> set[str]:
    """Last name parts of the linear layers, 4-bit and 8-bit ones among them."""
    return {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def set_adapter_dtype(model: Any, dtype: torch.dtype) -> None:
    """Give every trained weight `dtype`, except DoRA magnitudes, whose small updates bfloat16 would swallow."""
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            tensor.data = tensor.data.to(torch.float32 if "lora_magnitude_vector" in name else dtype)


def _original_dtypes(model: Any, settings: Settings) -> None:
    """The dtype pass of qlora.py: norms in float32; embeddings and head in bfloat16 when that is computed in."""
    for name, module in model.named_modules():
        if "norm" in name:
            module.to(torch.float32)
        is_table = ("lm_head" in name or "embed_tokens" in name) and hasattr(module, "weight")
        if is_table and settings.autocast_bf16 and module.weight.dtype == torch.float32:
            module.to(torch.bfloat16)


def _weights_file(config: RunConfig) -> str | None:
    from pathlib import Path

    path = Path(location(config.model))
    return str(path / "model.safetensors") if path.is_dir() else None


def parameter_counts(model: Any) -> tuple[int, int, dict[str, int], int]:
    """Parameters in all, trainable ones, a count per dtype, and bytes of the trainable ones.

    A packed 4-bit tensor counts the weights it stands for, not its bytes.
    """
    total = trainable = trainable_bytes = 0
    by_dtype: dict[str, int] = {}
    for tensor in model.parameters():
        state = getattr(tensor, "quant_state", None)
        count = state.shape.numel() if state is not None else tensor.numel()
        label = state.quant_type if state is not None else str(tensor.dtype).removeprefix("torch.")
        by_dtype[label] = by_dtype.get(label, 0) + count
        total += count
        if tensor.requires_grad:
            trainable += count
            trainable_bytes += tensor.nbytes
    return total, trainable, by_dtype, trainable_bytes
