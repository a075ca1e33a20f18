"""The base model and its tokenizer, quantized while they load."""

import pickle
import traceback
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from qlora_tui.config.model import ModelSpec
from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import eight_bit, foreign_tokenizer
from qlora_tui.engine.oom import is_out_of_memory
from qlora_tui.engine.resolve import Settings
from qlora_tui.errors import ConfigError, EnvironmentProblem, ModelError, QloraError
from qlora_tui.models.folder import location

PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>", "<unk>")
"""Existing tokens that serve as padding when a tokenizer names none, best first."""

_NEW_PAD = "<|pad|>"

_WANTED = "Choose a model that continues text, such as Llama, Qwen, Gemma or Mistral."


def load_tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer with a pad token that is never the end token. Raises ModelError."""
    tokenizer = foreign_tokenizer.load(
        location(spec),
        name=spec.id,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        explain=lambda error: _explain(error, spec, "tokenizer"),
    )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {spec.id} has no end token", hint="Set eos_token in its tokenizer_config.json."
        )
    ensure_pad_token(tokenizer)
    return tokenizer


def ensure_pad_token(tokenizer: Any) -> None:
    """Give the tokenizer a pad token that is not its end token: an unused one it has, else a new one."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary = tokenizer.get_vocab()
    for candidate in PAD_CANDIDATES:
        if candidate in vocabulary and candidate != tokenizer.eos_token:
            tokenizer.pad_token = candidate
            return
    tokenizer.add_special_tokens({"pad_token": _NEW_PAD})


def quantization_config(spec: QuantizationSpec, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return the quantization config for transformers; None for 16-bit and full finetuning."""
    if spec.kind == "none":
        return None
    if spec.kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.kind,
        bnb_4bit_use_double_quant=spec.double_quantization,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=getattr(torch, spec.quant_storage),
    )


def load_model(config: RunConfig, settings: Settings, tokenizer: Any) -> Any:
    """The base model on its device, quantized as configured, with a row for each token of the tokenizer.

    `added_rows` of the model says how many rows it lacked. Raises ModelError naming the model and what to do.
    """
    spec = config.model
    if config.quantization.kind == "8bit":
        eight_bit.drop_inputs()
    try:
        model = _pretrained(config, settings)
    except QloraError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise _explain(error, spec, "model") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files end in any kind of exception; the log tells a fault of ours
        traceback.print_exc()
        raise _explain(error, spec, "model") from error
    keep_training_layout(model)
    eight_bit.keep_scales(model)
    name_parts_for_trl(model)
    model.added_rows = grow_embeddings(model, tokenizer)
    check_special_tokens(model, spec.id)
    model.config.use_cache = False
    return model


def _pretrained(config: RunConfig, settings: Settings) -> Any:
    spec = config.model
    where, origin = location(spec), {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    if AutoConfig.from_pretrained(where, **origin).is_encoder_decoder:
        raise ModelError(f"{spec.id} is an encoder-decoder model, which cannot be trained here", hint=_WANTED)
    slower = ("sdpa", "eager") if spec.attention == "auto" else ()
    for attention in dict.fromkeys((settings.attention, *slower)):
        try:
            return AutoModelForCausalLM.from_pretrained(
                where,
                **origin,
                use_safetensors=None if spec.allow_pickle else True,
                weights_only=True,
                quantization_config=quantization_config(config.quantization, settings.compute_dtype),
                dtype=settings.dtype,
                attn_implementation=attention,
                device_map={"": settings.device},
            )
        except ValueError as error:
            if "does not support" not in str(error) or "ttention" not in str(error) or attention == "eager":
                raise
            problem = error
    raise problem


def keep_training_layout(model: Any) -> None:
    """Switch off the CPU inference layout of bitsandbytes' 4-bit layers.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks a 4-bit layer at its first call in evaluation mode and rounds
    the absmax to bfloat16, for good: an evaluation or a sample would change the weights that training continues with.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def name_parts_for_trl(model: Any) -> None:
    """Add the attribute names that TRL's tiled loss expects for the layers and the number of experts.

    Llama 4 of transformers 5 keeps its layers in `model` but says `language_model`, and has `num_local_experts` alone.
    """
    if model.base_model is model and isinstance(getattr(model, "model", None), torch.nn.Module):
        model.base_model_prefix = "model"
    text = model.config.get_text_config()
    if not hasattr(text, "num_experts") and hasattr(text, "num_local_experts"):
        text.num_experts = text.num_local_experts


def check_special_tokens(model: Any, name: str) -> None:
    """Remove special tokens that the model does not have from its generation configuration: they are never generated.

    Some models have a pad token id of -1. Raises ModelError for a value that is not a token id.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(model.generation_config, field, None)
        ids = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, int) for one in ids):
            raise ModelError(
                f"{field} = {value!r} in the generation configuration of {name} is not a token id",
                hint="Correct generation_config.json, or choose another model.",
            )
        usable = [one for one in ids if one is not None and 0 <= one < rows]
        if usable != [one for one in ids if one is not None]:
            setattr(
                model.generation_config, field, (usable if isinstance(value, list) else usable[0]) if usable else None
            )


@torch.no_grad()
def grow_embeddings(model: Any, tokenizer: Any) -> int:
    """Add a row for each token the model lacks, set to the mean of the old rows, and return how many were added.

    The mean is what qlora.py uses; it depends on the base alone, so a later load gets the same rows.
    """
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    old_rows = tables[0].weight.shape[0]
    added = len(tokenizer) - old_rows
    highest_id = max(tokenizer.get_vocab().values(), default=0)
    if highest_id >= max(old_rows, len(tokenizer)):
        raise ModelError(
            f"the tokenizer has a token with id {highest_id:,}, but the model's embedding has only {old_rows:,} rows",
            hint="The tokenizer and the weights belong to different models: download them again.",
        )
    if added <= 0:
        return 0
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        if table is not None:
            table.weight[old_rows:] = table.weight[:old_rows].float().mean(dim=0).to(table.weight.dtype)
    return added


def beyond_context(model: Any, row_tokens: int) -> str | None:
    """What to say when rows are longer than the model was made for; None when they are not.

    Raises ConfigError when the model keeps a table of positions, which ends there: GPT-2, OPT and their like.
    """
    config = model.config.get_text_config()
    context_tokens = getattr(config, "max_position_embeddings", None)
    if not context_tokens or row_tokens <= context_tokens:
        return None
    problem = f"rows have up to {row_tokens:,} tokens, and the model was made for {context_tokens:,}"
    if getattr(config, "rope_parameters", None) is None:
        raise ConfigError(problem, hint=f"Set training.max_length_tokens = {context_tokens}.")
    return f"{problem}: it learns little from what is behind; training.max_length_tokens = {context_tokens} cuts it off"


@dataclass(frozen=True, slots=True)
class UnquantizedExperts:
    names: tuple[str, ...]
    size_bytes: int


def unquantized_experts(model: Any) -> UnquantizedExperts:
    """Fused expert weights, which transformers 5 keeps as plain 3-D parameters that bitsandbytes does not quantize."""
    found = [(name, tensor) for name, tensor in model.named_parameters() if tensor.dim() == 3 and "expert" in name]
    return UnquantizedExperts(tuple(name for name, _ in found), sum(tensor.nbytes for _, tensor in found))


def stored_bytes(model: Any) -> int:
    """Bytes of every weight as it is stored, with the constants and tables of quantized ones."""
    return sum(tensor.nbytes + sum(constant.nbytes for constant in _constants(tensor)) for tensor in model.parameters())


def _constants(tensor: Any) -> list[torch.Tensor]:
    """What bitsandbytes 0.50 keeps beside a quantized weight: absmax, code book, nested constants; SCB for 8-bit."""
    found = [getattr(tensor, "SCB", None)]
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        found += [state.absmax, state.code, state.offset]
        if state.nested:
            found += [state.state2.absmax, state.state2.code]
    return [constant for constant in found if torch.is_tensor(constant)]


def _explain(error: Exception, spec: ModelSpec, part: str) -> QloraError:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the {part} of {spec.id} needs Python code from its repository",
            hint="Read that code, then set model.trust_remote_code = true, or choose another model.",
        )
    if isinstance(error, pickle.UnpicklingError):
        return ModelError(
            f"the pickled weights of {spec.id} contain objects other than tensors, which could run code",
            hint="Choose a model with safetensors, or convert this model if you trust it.",
        )
    if "Unrecognized configuration class" in text:
        return ModelError(f"{spec.id} is no causal language model", hint=_WANTED)
    if isinstance(error, ImportError) or "bitsandbytes" in text:
        return EnvironmentProblem(f"the {part} of {spec.id} cannot be loaded: {text}", hint="Run `qlora-tui doctor`.")
    if "gated" in text.lower() or "401" in text or "403" in text:
        return ModelError(
            f"{spec.id} is gated: {text}",
            hint=f"Accept its licence at https://huggingface.co/{spec.id} and log in with `hf auth login`.",
        )
    if "offline" in str(error).lower() or "couldn't connect" in str(error).lower() or "cannot find" in text.lower():
        return ModelError(
            f"the {part} of {spec.id} is not on this machine and could not be downloaded",
            hint="Check the spelling and the network, and allow the download with --yes.",
        )
    return ModelError(f"the {part} of {spec.id} cannot be loaded: {text}", hint="Check model.id and its files.")
