"""The base model as loading.py leaves it on a GPU, built from its config alone on tensors without data."""

from typing import Any

import bitsandbytes.functional
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.quantizers.auto import AutoHfQuantizer

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.loading import keep_training_layout, name_parts_for_trl, quantization_config
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.simulation.tracking import Tracker

_DYNAMIC_MAP = "dynamic"
"""Name under which bitsandbytes keeps the code book of the second quantization."""


def on_meta(hf_config: Any, config: RunConfig, settings: Settings) -> Any:
    """Return the model on the meta device, its linear layers replaced."""
    attention = "eager" if settings.attention == "eager" else "sdpa"
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(hf_config, dtype=settings.dtype, attn_implementation=attention)
        except ValueError as error:
            if "does not support" not in str(error):
                raise
            model = AutoModelForCausalLM.from_config(hf_config, dtype=settings.dtype, attn_implementation="eager")
    model.tie_weights()
    wanted = quantization_config(config.quantization, settings.compute_dtype)
    if wanted is not None:
        quantizer = AutoHfQuantizer.from_config(wanted, pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map={"": "cpu"}, dtype=settings.dtype)
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer
        model.tie_weights()
    model.requires_grad_(False)
    model.config.use_cache = False
    model.added_rows = 0
    return model


def materialize(model: Any, config: RunConfig, settings: Settings, tracker: Tracker) -> None:
    """Give every tensor of a model on the meta device a storage, in the order of loading, quantizing as it goes."""
    bitsandbytes.functional.name2qmap[_DYNAMIC_MAP] = torch.empty(256, dtype=torch.float32)
    done: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in done:
                done[id(parameter)] = _stored(module, name, parameter, config, settings, tracker)
            module._parameters[name] = done[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
                tracker.label(module._buffers[name], "weights")
                if name == "inv_freq" and hasattr(module, "original_inv_freq"):
                    module.original_inv_freq = module._buffers[name]
    keep_training_layout(model)
    name_parts_for_trl(model)


def _stored(
    module: nn.Module, name: str, parameter: nn.Parameter, config: RunConfig, settings: Settings, tracker: Tracker
) -> nn.Parameter:
    if name == "weight" and isinstance(module, Linear8bitLt):
        return _eight_bit(module, settings, tracker)
    if not (isinstance(module, Linear4bit) and name == "weight"):
        trained = config.adapter.kind == "full"
        made = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=trained)
        tracker.label(made, "weights")
        return made
    spec = config.quantization
    weight = torch.empty(module.out_features, module.in_features, dtype=settings.dtype)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight,
        compress_statistics=spec.double_quantization,
        quant_type=spec.kind,
        quant_storage=getattr(torch, spec.quant_storage),
    )
    # Params4bit cannot hold a tensor without data; a plain parameter with the same attributes takes its place.
    made = nn.Parameter(packed, requires_grad=False)
    made.quant_state, made.quant_type, made.compress_statistics = state, spec.kind, spec.double_quantization
    made.blocksize, made.quant_storage, made.bnb_quantized, made.module = state.blocksize, packed.dtype, True, module
    module.quant_state = state
    tracker.label(made, "packed weights")
    constants = [state.absmax, state.code]
    if state.nested:
        constants += [state.offset, state.state2.absmax, state.state2.code]
    for constant in constants:
        tracker.label(constant, "quantization constants")
    return made


def _eight_bit(module: Linear8bitLt, settings: Settings, tracker: Tracker) -> nn.Parameter:
    """As `Int8Params` quantizes while it moves to the GPU, in the state that the first forward pass would leave."""
    weight = torch.empty(module.out_features, module.in_features, dtype=settings.dtype)
    packed, absmax, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.to(torch.float16))
    made = nn.Parameter(packed, requires_grad=False)
    made.CB, made.SCB, made.has_fp16_weights = None, None, False
    module.state.CB, module.state.SCB = packed, absmax
    tracker.label(made, "packed weights")
    tracker.label(absmax, "quantization constants")
    return made
