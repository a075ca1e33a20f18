"""Which weights are trained: LoRA matrices put beside frozen weights, or all of them."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from peft.tuners import lora
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.loftq_utils import _low_rank_decomposition, _SafetensorLoader
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import pissa
from qlora_tui.engine.resolve import Settings
from qlora_tui.errors import ModelError
from qlora_tui.memory.module_names import Modules, refuse_misnamed
from qlora_tui.memory.targets import EXPERT_NAMES
from qlora_tui.models.hub import snapshot
from qlora_tui.models.location import local_folder, public_id

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def lora_config(spec: AdapterSpec, model: Any) -> LoraConfig:
    """PEFT's configuration of our adapter for a base model."""
    spec = spec.model_copy(deep=True)  # PEFT writes into the lists it is given.
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=_targets(spec, model),
        exclude_modules=_excluded(spec, model),
        layers_to_transform=spec.layers_to_transform or None,
        rank_pattern=spec.ranks,
        alpha_pattern=spec.alphas,
        use_rslora=spec.rank_stabilized,
        use_dora=spec.dora,
        init_lora_weights=pissa.INIT if spec.init == "pissa" else True,
        modules_to_save=spec.modules_to_save or None,
        # Without it the trained embedding of a model that shares it with its head leaves the head as it was.
        ensure_weight_tying=bool(spec.modules_to_save) and _shares_embedding(model),
        bias="none",
    )


def _targets(spec: AdapterSpec, model: Any) -> str | list[str]:
    """PEFT takes `layers_to_transform` only beside names: "all-linear" becomes those of all but the head."""
    if spec.target_modules != "all-linear" or not spec.layers_to_transform:
        return spec.target_modules
    head = model.get_output_embeddings()
    return sorted({_last_part(name) for name, layer in _linear_layers(model) if layer is not head})


def _excluded(spec: AdapterSpec, model: Any) -> str | list[str] | None:
    """What `exclude_modules` names, and what "all-linear" leaves out."""
    left_out = _left_out(model) if spec.target_modules == "all-linear" else None
    if left_out is None or not spec.exclude_modules:
        return left_out or spec.exclude_modules or None
    if isinstance(spec.exclude_modules, str):
        return f"(?:{left_out})|(?:{spec.exclude_modules})"
    names = "|".join(re.escape(name) for name in spec.exclude_modules)
    return rf"(?:{left_out})|(?:(?:.*\.)?(?:{names}))"


def _left_out(model: Any) -> str | None:
    """Regular expression for modules that "all-linear" excludes; None if there are none.

    These are all modules outside the language model in a multimodal model, and routers that are
    linear layers (Llama 4): they return two tensors, which PEFT's LoRA layer does not support.
    """
    patterns = []
    if model.config.get_text_config() is not model.config:
        decoder = model.get_decoder()
        name = next(name for name, module in model.named_modules() if module is decoder)
        patterns.append(rf"(?!{re.escape(name)}\.).*")
    routers = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_router(module)}
    patterns += [rf".*\.{re.escape(name)}" for name in sorted(routers)]
    return "|".join(patterns) or None


def _is_router(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) and type(module).__name__.endswith("Router")


def _shares_embedding(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def attach(model: Any, config: RunConfig, settings: Settings, pissa_initial: Path | None = None) -> Any:
    """The model ready to train. Raises ModelError when the target modules do not fit it.

    `pissa_initial` is the folder of the matrices that PiSSA found when the run began, if it began before.
    """
    spec = config.adapter
    if spec.kind == "full":
        return model
    if config.training.recipe == "original" and config.quantization.kind != "none":
        # Checkpointing is switched on by the trainer, so only the dtype part of the preparation is wanted here.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # Tables that have grown are saved whole; left to itself PEFT asks the hub at every checkpoint whether they have.
    save_embeddings = model.added_rows > 0
    model = _with_lora(model, config)
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=save_embeddings)
    if spec.init == "pissa":
        pissa.begin(model, settings.adapter_dtype, pissa_initial)
    if spec.init == "loftq":
        _start_with_loftq(model, config)
    if config.training.recipe == "original":
        _original_dtypes(model, settings)
    set_adapter_dtype(model, settings.adapter_dtype)
    return model


def _with_lora(model: Any, config: RunConfig) -> Any:
    spec = config.adapter
    refuse_misnamed(config, _modules(model, config.model.id))
    wanted = lora_config(spec, model)
    wanted.revision = config.model.revision
    init = wanted.init_lora_weights
    wanted.init_lora_weights = True  # how the matrices start is decided afterwards
    try:
        adapted = get_peft_model(model, wanted)
    except ValueError as error:
        raise _misfit(error, model, config) from error
    saved = adapted.peft_config["default"]
    saved.init_lora_weights = init
    saved.base_model_name_or_path = public_id(config.model)  # left to itself PEFT writes the local folder
    if isinstance(adapted.get_base_model().get_output_embeddings(), BaseTunerLayer):
        # The tiled loss multiplies by the head's own weight, so an adapter on it would never be trained.
        raise ModelError(
            f"adapter.target_modules = {spec.target_modules!r} includes the output head of {config.model.id}",
            hint='Leave the head out, or train it in full: adapter.modules_to_save = ["lm_head"].',
        )
    return adapted


def _modules(model: Any, model_id: str) -> Modules:
    """Paths of the loaded model's modules, sorted by what PEFT can do with them."""
    named = [(name, module) for name, module in model.named_modules() if name]
    layers = [name for name, module in named if isinstance(module, (nn.Linear, nn.Embedding, Conv1D, *_CONVOLUTIONS))]
    left_out, head = re.compile(_left_out(model) or r"(?!)"), model.get_output_embeddings()
    everywhere = [
        name
        for name, module in named
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not left_out.fullmatch(name)
    ]
    text = model.config.get_text_config()
    former = EXPERT_NAMES.get(text.model_type, ())
    everywhere += [f"{name}.{each}" for name, module in named if name.endswith(".experts") for each in former]
    everywhere += [name for name, _ in named if former and name.endswith(".gate")]
    others = [name for name, _ in named if name not in layers]
    packed = tuple(name for name, module in named if isinstance(module, Linear4bit | Linear8bitLt))
    return Modules(
        model_id, (*layers, *everywhere), tuple(everywhere), tuple(others), packed, depth=text.num_hidden_layers
    )


def _misfit(error: ValueError, model: Any, config: RunConfig) -> ModelError:
    first = str(error).splitlines()[0]
    if "ParamWrapper" in first:
        return ModelError(
            f"the experts of {config.model.id} are single tensors, which take neither adapter.dropout nor adapter.dora",
            hint="Set adapter.dropout = 0 and adapter.dora = false, or name only attention layers in "
            "adapter.target_modules.",
        )
    return ModelError(
        f"adapter.target_modules = {config.adapter.target_modules!r} does not fit {config.model.id}: {first}",
        hint=f"Linear layers of this model: {', '.join(sorted(linear_names(model)))}.",
    )


@torch.no_grad()
def _start_with_loftq(model: Any, config: RunConfig) -> None:
    """Start the matrices with the principal components of the quantization error, so that they cancel most of it.

    PEFT's `replace_lora_weights_loftq` does the same on GPUs alone, and without dividing by the scale of the update.
    """
    folder = local_folder(config.model) or snapshot(config.model)
    weights = _SafetensorLoader(model, str(Path(folder or "") / "model.safetensors"))
    try:
        for name, layer in model.named_modules():
            if isinstance(layer, lora.Linear4bit):
                _cancel_error(layer, weights.get_tensor(f"{name.removeprefix('base_model.model.')}.weight"))
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"adapter.init = loftq finds no unquantized weights of {config.model.id} that fit: {error}",
            hint='It needs the safetensors files of the model; or set adapter.init = "default".',
        ) from error


def _cancel_error(layer: Any, weight: torch.Tensor) -> None:
    """Set the matrices of a 4-bit layer to the best approximation of `weight` [outputs, inputs] less what is stored."""
    stored = layer.get_base_layer().weight
    error = weight.to(stored.device, torch.float32) - dequantize_4bit(stored.data, stored.quant_state).float()
    parts = _low_rank_decomposition(error, reduced_rank=layer.r["default"])
    layer.lora_A["default"].weight.data = parts["R"]
    layer.lora_B["default"].weight.data = parts["L"] / layer.scaling["default"]


def linear_names(model: Any) -> set[str]:
    """Last name parts of the linear layers, 4-bit and 8-bit ones among them."""
    return {_last_part(name) for name, _ in _linear_layers(model)}


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


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
