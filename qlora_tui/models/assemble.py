"""From config.json and the stored tensors to ModelFacts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.models import blueprint, checkpoint, families, inventory
from qlora_tui.models.dimensions import Dimensions, check_heads
from qlora_tui.models.facts import DTYPE_BYTES, LatentAttention, ModelFacts, ModuleGroup, MoeShape, Origin
from qlora_tui.models.families import Family
from qlora_tui.models.layers import moe_layer_count, sliding_window
from qlora_tui.models.tensors import Tensors
from qlora_tui.models.untrainable import OTHER_HEADS

_CONTEXT_KEYS = ("context", "max_position_embeddings", "n_positions", "seq_length")
_ROPE_KEYS = ("rope_scaling", "rope_parameters")
_ROTARY_KEYS = ("partial_rotary_factor", "rotary_pct")
_DTYPE_UNSAID = "float32"
_ENCODER_DECODER = "An encoder-decoder model: its facts are shown, but it cannot be fine-tuned here."


@dataclass(frozen=True)
class Source:
    """What was found of a model, wherever it is."""

    id: str
    origin: Origin
    config: Mapping[str, Any]
    tensors: Tensors | None
    """None when no weights can be looked at."""

    revision: str | None = None
    checkpoint_bytes: int | None = None
    download_bytes: int | None = None
    licence: str | None = None
    gated: bool = False
    notes: tuple[str, ...] = ()


def assemble(source: Source) -> ModelFacts:
    """All that follows from a source. Raises ModelError for a config.json that lies or an unreadable architecture."""
    config = source.config
    model_type = str(config["model_type"])
    family = families.find(model_type)
    if family is None and source.tensors is None:
        raise ModelError(
            f"nothing is known of architecture {model_type} of {source.id}, and there are no safetensors to look at",
            hint="Known: " + ", ".join(families.model_types()) + ".",
        )
    dimensions = Dimensions(family or families.generic(), _text_config(config, family), source.id)
    modules, notes = _weights(source, family, dimensions)
    facts = _facts(source, family, dimensions, modules)
    return replace(facts, notes=(*source.notes, *_remarks(source, family, dimensions, facts.architecture), *notes))


def _text_config(config: Mapping[str, Any], family: Family | None) -> Mapping[str, Any]:
    """The part of config.json that describes the language model."""
    key = "text_config" if family is None else family.text_config
    part = config.get(key) if key else None
    if not isinstance(part, Mapping) or (family is None and "hidden_size" in config):
        if family is not None and key:
            raise ModelError(f"config.json has no {key}", hint="Download the model again.")
        return config
    shared = {name: config[name] for name in ("tie_word_embeddings", "dtype", "torch_dtype") if name in config}
    return {**part, **shared}


def _weights(source: Source, family: Family | None, dimensions: Dimensions) -> tuple[list[ModuleGroup], list[str]]:
    if family is None:
        modules = inventory.modules(source.tensors or {})
        if dimensions.raw("tie_word_embeddings"):
            modules = [group for group in modules if group.kind != "head"]
        return modules, []
    check_heads(dimensions)
    dtype = _config_dtype(dimensions)
    seen = dimensions
    modules = []
    if family.vision is not None:
        part = families.find(family.vision["family"])
        vision_config = source.config.get(family.vision["config"]) or {}
        if part is not None and isinstance(vision_config, Mapping):
            vision = Dimensions(part, vision_config, source.id)
            modules = blueprint.modules(part, vision, dtype, vision=True)
            width = {"vision_hidden": vision.number("hidden")}
            seen = Dimensions(family, {**dimensions.config, **width}, source.id)
    modules += blueprint.modules(family, seen, dtype)
    dimensions.assumed.update(seen.assumed)
    if source.tensors is None:
        return modules, []
    compared = checkpoint.compare(family, modules, source.tensors, dimensions.number("layers"), source.id)
    return list(compared.modules), list(compared.notes)


def _facts(source: Source, family: Family | None, dimensions: Dimensions, modules: list[ModuleGroup]) -> ModelFacts:
    layers = dimensions.number("layers")
    window, windowed = sliding_window(dimensions.family, dimensions, layers)
    architectures = source.config.get("architectures") or [dimensions.family.architecture]
    moe = _moe(dimensions, layers, modules)
    return ModelFacts(
        id=source.id,
        origin=source.origin,
        revision=source.revision,
        architecture=str(architectures[0]),
        model_type=str(source.config["model_type"]),
        family=family.model_type if family else None,
        layers=layers,
        hidden_size=dimensions.number("hidden"),
        heads=dimensions.optional("heads") or 0,
        kv_heads=dimensions.optional("kv_heads") or 0,
        head_dim=dimensions.optional("head_dim") or 0,
        mlp_width=(moe.expert_mlp_width if moe and moe.moe_layers == layers else dimensions.optional("mlp")) or 0,
        mlp_kind=_mlp_kind(dimensions),
        vocab_size=dimensions.number("vocab") if family else dimensions.optional("vocab") or 0,
        context_tokens=next((size for key in _CONTEXT_KEYS if (size := dimensions.optional(key))), None),
        rope_scaling=_rope_scaling(dimensions.config),
        sliding_window_tokens=window,
        sliding_layers=windowed,
        moe=moe,
        latent_attention=_latent_attention(dimensions),
        tied=not any(group.kind == "head" for group in modules),
        encoder_decoder=_is_encoder_decoder(source, dimensions.family),
        dtype=_main_dtype(modules),
        modules=tuple(modules),
        checkpoint_bytes=source.checkpoint_bytes or _size_bytes(modules),
        download_bytes=source.download_bytes,
        licence=source.licence,
        gated=source.gated,
        rotary_dim=_rotary_dim(dimensions),
        usual=all(dimensions.holds(condition) for condition in dimensions.family.usual),
    )


def _is_encoder_decoder(source: Source, family: Family) -> bool:
    return family.encoder_decoder or source.config.get("is_encoder_decoder") is True


def _rotary_dim(dimensions: Dimensions) -> int:
    tables = (dimensions.config, *(dimensions.config.get(key) for key in _ROPE_KEYS))
    named = [table[key] for table in tables if isinstance(table, Mapping) for key in _ROTARY_KEYS if key in table]
    share = next((share for share in named if share is not None), dimensions.family.rotary)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ModelError(
            f"config.json of {dimensions.origin}: {_ROTARY_KEYS[0]} is {share!r}, not from 0 to 1",
            hint="Compare it with the config.json of the original model, or download the model again.",
        )
    return int((dimensions.optional("head_dim") or 0) * share)


def _mlp_kind(dimensions: Dimensions) -> Any:
    gated = dimensions.family.encoder_decoder and dimensions.holds("feed_forward_proj~gated")
    return "gated" if gated else dimensions.family.mlp_kind


def _moe(dimensions: Dimensions, layers: int, modules: list[ModuleGroup]) -> MoeShape | None:
    if not any(group.kind == "expert" for group in modules):
        return None
    family = dimensions.family
    per_token = dimensions.optional("experts_per_token") or 0
    experts = dimensions.optional("experts") or 0
    width = dimensions.optional("expert_mlp") or 0
    shared = dimensions.optional("shared_mlp") if "shared_mlp" in family.names else 0
    with_experts = moe_layer_count(family, dimensions, layers) if family.moe else layers
    return MoeShape(experts, per_token, width, shared or 0, with_experts)


def _latent_attention(dimensions: Dimensions) -> LatentAttention | None:
    kv_rank = dimensions.optional("kv_lora_rank")
    if kv_rank is None:
        return None
    keys = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    rope, nope, value = (dimensions.optional(key) or 0 for key in keys)
    return LatentAttention(dimensions.optional("q_lora_rank") or 0, kv_rank, rope, nope, value)


def _rope_scaling(config: Mapping[str, Any]) -> str | None:
    for key in _ROPE_KEYS:
        table = config.get(key)
        if isinstance(table, Mapping):
            kind = table.get("rope_type", table.get("type"))
            if isinstance(kind, str) and kind != "default":
                return kind
    return None


def _config_dtype(dimensions: Dimensions) -> str:
    named = dimensions.config.get("dtype") or dimensions.config.get("torch_dtype")
    name = str(named or _DTYPE_UNSAID).removeprefix("torch.")
    return name if name in DTYPE_BYTES else _DTYPE_UNSAID


def _main_dtype(modules: list[ModuleGroup]) -> str:
    counts: Counter[str] = Counter()
    for group in modules:
        counts[group.dtype] += group.parameters
    return counts.most_common(1)[0][0] if counts else _DTYPE_UNSAID


def _size_bytes(modules: list[ModuleGroup]) -> int:
    return sum(group.parameters * DTYPE_BYTES.get(group.dtype, 2) for group in modules)


def _remarks(source: Source, family: Family | None, dimensions: Dimensions, architecture: str) -> list[str]:
    notes = [_ENCODER_DECODER] if _is_encoder_decoder(source, dimensions.family) else []
    if architecture.endswith(OTHER_HEADS):
        notes.append(f"Saved as {architecture}, which does not write text: a head that does would start untrained.")
    if family is None:
        model_type = source.config["model_type"]
        code = " It needs Python code from its repository." if source.config.get("auto_map") else ""
        return [
            *notes,
            f"Architecture {model_type} has no entry of its own: its layers were sorted by the names of the weights,"
            f" and which of them become 4-bit is a guess.{code}",
        ]
    notes += family.notes
    assumed = sorted(f"{key} ({value})" for key, value in dimensions.assumed.items() if type(value) is int)
    if assumed:
        notes.append(f"config.json leaves out {', '.join(assumed)}; transformers uses the defaults in brackets.")
    if family.moe:
        notes.append("Fused experts are not quantized: transformers keeps them in their own dtype.")
    if source.tensors is None:
        notes.append("Counted from config.json; the weight files were not read.")
    return notes
