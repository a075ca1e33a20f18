"""The bytes that the estimate counts are those of the tensors that transformers, PEFT and bitsandbytes really make."""

from collections import Counter
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import adapters, loading
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.resolve import resolve as resolve_settings
from qlora_tui.memory import choices, stored, trainable
from qlora_tui.memory.device import Device
from qlora_tui.models import describe
from qlora_tui.models.facts import ModelFacts

HOST = Device("cpu", "RAM", 1 << 34, 1 << 34, native_bf16=hardware.cpu_has_native_bf16())
SMALL: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 96,
    "intermediate_size": 264,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
ODD = SMALL | {"vocab_size": 77, "hidden_size": 66, "intermediate_size": 33, "num_attention_heads": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, untied, grouped heads": ("llama", SMALL | {"tie_word_embeddings": False}),
    "llama, tied, odd sizes": ("llama", ODD | {"num_key_value_heads": 3, "tie_word_embeddings": True}),
    "qwen2, biases": ("qwen2", SMALL | {"tie_word_embeddings": True}),
    "gemma 3, four norms": ("gemma3_text", SMALL | {"head_dim": 32}),
    "phi 3, fused projections": ("phi3", SMALL),
    "gpt-2, transposed": ("gpt2", {"vocab_size": 500, "n_embd": 96, "n_layer": 2, "n_head": 6, "n_positions": 64}),
    "mixtral, experts": ("mixtral", SMALL | {"num_local_experts": 3}),
    "qwen3 moe, experts": (
        "qwen3_moe",
        SMALL | {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40},
    ),
}
KINDS = {
    "nf4 doubly": ("quantization.kind=nf4", "quantization.double_quantization=true"),
    "nf4": ("quantization.kind=nf4", "quantization.double_quantization=false"),
    "fp4": ("quantization.kind=fp4", "quantization.double_quantization=false"),
    "8-bit": ("quantization.kind=8bit",),
}


@pytest.fixture(scope="module", params=MODELS, ids=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    model_type, sizes = MODELS[request.param]
    where = tmp_path_factory.mktemp(model_type)
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(where)
    return where


def loaded(folder: Path, *settings: str) -> tuple[RunConfig, Settings, ModelFacts, Any]:
    config = resolve(overrides=[f"model.id={folder}", "model.device=cpu", *settings])
    used = resolve_settings(config)
    model = loading.load_model(config, used, _Tokenizer())
    return config, used, describe(str(folder)), model


class _Tokenizer:
    def __len__(self) -> int:
        return 0

    def get_vocab(self) -> dict[str, int]:
        return {}


def parts_of(model: Any) -> Counter[str]:
    """Bytes of the storages behind a model's weights by what they hold, each storage counted once."""
    found: Counter[str] = Counter()
    seen: set[int] = set()

    def add(part: str, *tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                found[part] += tensor.untyped_storage().nbytes()

    for _, tensor in model.named_parameters():
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            add("packed", tensor.data)
            add("absmax", state.absmax)
            add("tables", state.code, state.offset, state.state2.code if state.nested else None)
            add("nested_absmax", state.state2.absmax if state.nested else None)
        elif isinstance(tensor, bnb.nn.Int8Params):
            add("packed", tensor.data)
            add("scb", tensor.SCB)
        else:
            add("plain", tensor.data)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_stored_bytes_are_those_of_the_loaded_tensors(folder: Path, kind: str) -> None:
    for dtype in ("float32", "bfloat16"):
        config, used, facts, model = loaded(folder, *KINDS[kind], f"model.dtype={dtype}")
        chosen = choices.choose(config, HOST)
        item_bytes = chosen.weight_bytes
        assert (item_bytes, chosen.compute_bytes) == (used.dtype.itemsize, used.compute_dtype.itemsize)
        assert (chosen.adapter_bytes, chosen.optimizer) == (used.adapter_dtype.itemsize, used.optimizer)
        counted = Counter(stored.weights(facts, config.quantization, stored.loaded_dtypes(item_bytes)))
        plain = sum(
            counted.pop(part, 0) for part in ("embedding", "head", "norm", "bias", "expert", "plain_linear", "other")
        )
        assert {**counted, "plain": plain} == dict(parts_of(model))
        assert loading.stored_bytes(model) == plain + counted.total()


@pytest.mark.parametrize(
    "adapter",
    ["adapter.target_modules=all-linear", r"adapter.target_modules=.*(q_proj|v_proj|c_attn|qkv_proj)",
     "adapter.dora=true",
     "adapter.target_modules=.*layers\\.1.*(o|c)_proj|.*h\\.1\\.attn\\.c_.*", "training.recipe=original"],
)  # fmt: skip
def test_trained_tensors_are_counted_as_peft_makes_them(folder: Path, adapter: str) -> None:
    rest = (
        ["adapter.target_modules=q_proj,v_proj"]
        if folder.name[:-1] in ("mixtral", "qwen3_moe") and "dora" in adapter
        else []
    )
    config, used, facts, model = loaded(folder, adapter, *rest, "adapter.rank=8", "model.dtype=bfloat16")
    adapted = adapters.attach(model, config, used)
    trained = trainable.tensors(facts, config.adapter, used.adapter_dtype.itemsize)
    _, parameters, _, trained_bytes = adapters.parameter_counts(adapted)
    assert parameters > 0
    assert trainable.parameters(trained) == parameters
    assert trainable.total_bytes(trained) == trained_bytes
    if config.training.recipe == "original":
        dtypes = stored.prepared_dtypes(2, original=True, on_gpu=False)
        counted = sum(stored.weights(facts, config.quantization, dtypes).values())
        assert loading.stored_bytes(adapted) == counted + trained_bytes


OPTIMIZERS = (
    "adamw_torch", "adamw_bnb_8bit", "lion_32bit", "lion_8bit", "ademamix", "ademamix_8bit", "adafactor", "sgd",
)  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimizer_states_are_those_that_one_step_leaves(optimizer: str, dtype: torch.dtype, tmp_path: Path) -> None:
    shapes = [(30, 40), (64, 101), (512, 300), (700, 1)]
    weights = [torch.nn.Parameter(torch.randn(shape).squeeze(1).to(dtype)) for shape in shapes]
    module = torch.nn.ParameterList(weights)
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=optimizer, use_cpu=True, learning_rate=1e-3)
    make, options = Trainer.get_optimizer_cls_and_kwargs(arguments, module)
    stepper = make(weights, **options)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    stepper.step()
    kept: dict[int, int] = {}
    for state in stepper.state.values():
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor) and name != "step":
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    trained = [trainable.Trained(rows, columns, 1, dtype.itemsize) for rows, columns in shapes]
    assert trainable.state(trained, optimizer, on_gpu=False).device_bytes == sum(kept.values())
