"""Weights computed from config.json, held against transformers' modules on the meta device and bitsandbytes."""

import copy
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import HfQuantizer

from qlora_tui.config.model import STARTER
from qlora_tui.config.presets import presets
from qlora_tui.models import ModelFacts, catalogue, families
from qlora_tui.models.assemble import Source, assemble

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
MLA = {"q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEP = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
T5 = {"vocab_size": 96, "d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 3, "num_heads": 6}
VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
GEMMA3 = {
    "text_config": SMALL | {"head_dim": 16},
    "vision_config": VISION | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14},
}

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", SMALL),
    ("llama", SMALL | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    ("mistral", SMALL | {"head_dim": 12}),
    ("mixtral", SMALL | {"num_local_experts": 3}),
    ("qwen2", SMALL),
    ("qwen2", SMALL | {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 32}),
    ("qwen3", SMALL | {"head_dim": 10, "attention_bias": True, "tie_word_embeddings": True}),
    ("qwen2_moe", SMALL | EXPERTS | {"shared_expert_intermediate_size": 28, "decoder_sparse_step": 2}),
    ("qwen3_moe", SMALL | EXPERTS | {"head_dim": 10, "mlp_only_layers": [0, 2]}),
    ("llama4_text", SMALL | {"intermediate_size_mlp": 72, "interleave_moe_layer_step": 2, "num_local_experts": 3}),
    ("llama4", {"text_config": SMALL | {"moe_layers": [1, 2, 3], "num_local_experts": 3}}),
    ("gemma", SMALL | {"head_dim": 14, "attention_bias": True}),
    ("gemma2", SMALL | {"head_dim": 14}),
    ("gemma3_text", SMALL | {"head_dim": 14, "num_hidden_layers": 8}),
    ("gemma3", GEMMA3),
    ("gemma3", GEMMA3 | {"vision_config": GEMMA3["vision_config"] | {"vision_use_head": False}}),
    ("phi3", SMALL | {"tie_word_embeddings": True}),
    ("phi", SMALL),
    ("phi", SMALL | {"qk_layernorm": True}),
    ("falcon", SMALL),
    ("falcon", SMALL | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", SMALL | {"multi_query": False, "parallel_attn": False, "tie_word_embeddings": False}),
    ("falcon", SMALL | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 56}),
    ("gpt_neox", SMALL),
    ("gpt_neox", SMALL | {"attention_bias": False, "tie_word_embeddings": True}),
    ("opt", SMALL | {"ffn_dim": 80}),
    ("opt", SMALL | {"ffn_dim": 80, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    ("opt", SMALL | {"ffn_dim": 80, "enable_bias": False}),
    ("opt", SMALL | {"ffn_dim": 80, "layer_norm_elementwise_affine": False}),
    ("bloom", {"vocab_size": 96, "hidden_size": 48, "n_layer": 3, "n_head": 6}),
    ("gpt2", {"vocab_size": 96, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 40}),
    ("gpt2", {"vocab_size": 96, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_inner": 56, "tie_word_embeddings": False}),
    ("stablelm", SMALL),
    ("stablelm", SMALL | {"use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True}),
    ("olmo2", SMALL),
    ("granite", SMALL | {"tie_word_embeddings": True}),
    ("glm", SMALL | {"head_dim": 16, "attention_bias": True, "pad_token_id": 0}),
    ("glm4", SMALL | {"head_dim": 16, "attention_bias": True, "pad_token_id": 0}),
    ("smollm3", SMALL | {"use_sliding_window": True, "sliding_window": 16}),
    ("cohere", SMALL | {"use_qk_norm": True}),
    ("cohere2", SMALL | {"num_hidden_layers": 9}),
    ("deepseek_v2", SMALL | MLA | DEEP | {"first_k_dense_replace": 1, "mlp_bias": True}),
    ("deepseek_v2", SMALL | MLA | DEEP | {"q_lora_rank": None, "attention_bias": True}),
    ("deepseek_v3", SMALL | MLA | DEEP | {"first_k_dense_replace": 2, "num_key_value_heads": 6}),
    ("gpt_oss", SMALL | {"head_dim": 10, "num_local_experts": 3}),
    ("t5", T5),
    ("t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2}),
]


def built(model_type: str, settings: Mapping[str, Any]) -> Any:
    """transformers' own model on the meta device: shapes without memory."""
    config = AutoConfig.for_model(model_type, **copy.deepcopy(dict(settings)))
    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return factory.from_config(config)


def shapes_of(model: Any) -> Counter[tuple[str, tuple[int, ...]]]:
    shapes = Counter((numberless(name), tuple(tensor.shape)) for name, tensor in model.named_parameters())
    if model.config.model_type == "t5" and not model.config.scale_decoder_outputs:
        # T5 1.1 is built with a tied head and gets one of its own from the checkpoint.
        shapes["lm_head.weight", (model.config.vocab_size, model.config.d_model)] += 1
    return shapes


def numberless(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def shapes_in(facts: ModelFacts) -> Counter[tuple[str, tuple[int, ...]]]:
    found: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in facts.modules:
        for name, shape in group.tensors.items():
            found[numberless(name), shape] += group.count
    return found


def facts_of(model_type: str, settings: Mapping[str, Any]) -> ModelFacts:
    return assemble(Source("small/model", "catalogue", {"model_type": model_type, **settings}, None))


def quantized_by_bitsandbytes(model: Any) -> Counter[tuple[str, int, int]]:
    """The layers that loading in 4-bit replaces, with their sizes."""
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replaced = replace_with_bnb_linear(model, kept, BitsAndBytesConfig(load_in_4bit=True))
    return Counter(
        (numberless(f"{name}."), module.in_features, module.out_features)
        for name, module in replaced.named_modules()
        if type(module).__name__ == "Linear4bit"
    )


def quantized_in(facts: ModelFacts) -> Counter[tuple[str, int, int]]:
    found: Counter[tuple[str, int, int]] = Counter()
    for group in facts.linear_layers:
        if group.quantized:
            found[numberless(f"{group.name}."), group.in_features, group.out_features] += group.count
    return found


@pytest.mark.parametrize(("model_type", "settings"), VARIANTS)
def test_every_tensor_and_every_quantized_layer_is_what_transformers_builds(
    model_type: str, settings: dict[str, Any]
) -> None:
    model = built(model_type, settings)
    facts = facts_of(model_type, settings)
    assert shapes_in(facts) == shapes_of(model)
    assert facts.architecture == type(model).__name__ or model_type == "llama4"
    assert sum(facts.parameters_by_class.values()) == facts.parameters
    assert facts.encoder_decoder == model.config.is_encoder_decoder
    layer_types = getattr(model.config.get_text_config(), "layer_types", None)
    if layer_types is not None:
        assert facts.sliding_layers == sum("full" not in kind for kind in layer_types)
    assert quantized_in(facts) == quantized_by_bitsandbytes(model)


def test_every_family_is_tried() -> None:
    parts = {"siglip_vision_model"}
    assert {model_type for model_type, _ in VARIANTS} | parts == set(families.model_types())


@pytest.mark.parametrize("model_type", families.model_types())
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    family = families.find(model_type)
    assert family is not None
    config = AutoConfig.for_model(model_type)
    text_config = getattr(config, family.text_config) if family.text_config else config
    told = {key: getattr(text_config, key, False) for key in family.defaults}
    assert told == dict(family.defaults)


def one_id_per_shape() -> list[str]:
    shapes = {repr(found.config): model_id for model_id in catalogue.ids() if (found := catalogue.find(model_id))}
    return sorted(shapes.values())


def shortened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same model with four layers; how positions are stretched changes no shape."""
    short = {key: value for key, value in config.items() if key != "rope_scaling"}
    for key in ("num_hidden_layers", "n_layer", "num_layers"):
        if key in short:
            short[key] = 4
    for key in ("text_config", "vision_config"):
        if key in short:
            short[key] = shortened(short[key])
    return short


@pytest.mark.parametrize("model_id", one_id_per_shape())
def test_the_catalogue_holds_real_shapes(model_id: str) -> None:
    source = catalogue.find(model_id)
    assert source is not None
    settings = shortened(source.config)
    model_type = settings.pop("model_type")
    model = built(model_type, settings | {"pad_token_id": 0})
    assert shapes_in(facts_of(model_type, settings)) == shapes_of(model)


@pytest.mark.parametrize("model_id", catalogue.ids())
def test_the_catalogue_has_the_published_number_of_parameters(model_id: str) -> None:
    source = catalogue.find(model_id)
    assert source is not None
    facts = assemble(source)
    assert facts.parameters == catalogue.published_parameters(model_id)
    assert facts.licence
    assert facts.context_tokens is not None or facts.model_type == "bloom"


def test_a_full_size_model_is_counted_as_transformers_counts_it() -> None:
    source = catalogue.find("Qwen/Qwen3-30B-A3B")
    assert source is not None
    settings = dict(source.config)
    model = built(settings.pop("model_type"), settings)
    facts = assemble(source)
    assert facts.parameters == sum(tensor.numel() for tensor in model.parameters())
    assert facts.moe is not None
    assert facts.parameters_by_class["expert"] == 128 * 3 * 768 * 2048 * 48


@pytest.mark.parametrize(
    ("model_id", "width"), [("Qwen/Qwen3-30B-A3B", 768), ("deepseek-ai/DeepSeek-V2-Lite", 10944), ("gpt2", 3072)]
)
def test_the_mlp_width_is_that_of_a_dense_layer_or_of_an_expert_where_there_is_none(model_id: str, width: int) -> None:
    source = catalogue.find(model_id)
    assert source is not None
    assert assemble(source).mlp_width == width


def test_every_preset_has_a_model_that_is_known_without_a_hub() -> None:
    used = {preset.config.model.id for preset in presets()} - {STARTER}
    assert used
    assert {model_id for model_id in used if catalogue.find(model_id) is None} == set()
