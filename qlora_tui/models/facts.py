"""What is known of a model: its dimensions and every group of its weights. Plain data, the same whatever its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

ModuleKind = Literal["linear", "embedding", "head", "norm", "expert", "router", "other"]
ParameterClass = Literal["linear", "embedding", "head", "norm", "bias", "expert", "router", "vision", "other"]
MlpKind = Literal["gated", "plain", "unknown"]
Origin = Literal["bundled", "folder", "cache", "hub", "catalogue"]

CLASSES: tuple[ParameterClass, ...] = (
    "linear",
    "embedding",
    "head",
    "norm",
    "bias",
    "expert",
    "router",
    "vision",
    "other",
)
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of one element by the name torch gives the dtype."""


@dataclass(frozen=True, slots=True)
class ModuleGroup:
    """Modules that differ in nothing but the number of their layer."""

    name: str
    """Path as transformers builds it, `*` for the number of a layer: "model.layers.*.self_attn.q_proj"."""

    kind: ModuleKind
    shape: tuple[int, ...]
    """Shape of one weight: [out, in] of a linear layer, [in, out] where the family stores it transposed (GPT-2)."""

    count: int
    bias_elements: int = 0
    """Elements of one module's bias; 0 without one."""

    quantized: bool = False
    """Whether bitsandbytes replaces this linear layer: not the head, routers, fused experts or tied modules."""

    vision: bool = False
    in_features: int = 0
    out_features: int = 0
    dtype: str = "bfloat16"
    """Dtype in the checkpoint, by torch's name."""

    raw: bool = False
    """The weight is a bare parameter, called like the group without ".weight" (fused experts)."""

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one module's tensors."""
        weight = {self.name if self.raw else f"{self.name}.weight": self.shape}
        return weight | ({f"{self.name}.bias": (self.bias_elements,)} if self.bias_elements else {})

    @property
    def weight_elements(self) -> int:
        """Elements of all weights of the group, biases left out."""
        return self.count * prod(self.shape)

    @property
    def parameters(self) -> int:
        return self.weight_elements + self.count * self.bias_elements


@dataclass(frozen=True, slots=True)
class MoeShape:
    experts: int
    experts_per_token: int
    expert_mlp_width: int
    shared_mlp_width: int
    """Width of the experts that every token passes through; 0 without them."""

    moe_layers: int
    """Layers that have experts; the others have a dense MLP."""


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek): keys and values come from a compressed vector."""

    q_rank: int
    """0: queries are not compressed."""

    kv_rank: int
    rope_head_dim: int
    nope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Dimensions, weights and terms of a model. A dimension is 0 where nothing is known of it."""

    id: str
    origin: Origin
    revision: str | None
    """Commit on the hub; None for a folder or the catalogue."""

    architecture: str
    model_type: str
    family: str | None
    """The family whose closed forms apply; None when all is read off the weights."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    """Width of the dense MLP; of one expert where no layer is dense."""

    mlp_kind: MlpKind
    vocab_size: int
    context_tokens: int | None
    """Longest sequence the model was made for."""

    rope_scaling: str | None
    """Kind of scaling that stretches the context, such as "llama3" or "yarn"."""

    sliding_window_tokens: int | None
    sliding_layers: int
    """How many layers see no further than the sliding window (or chunk)."""

    moe: MoeShape | None
    latent_attention: LatentAttention | None
    tied: bool
    """Whether the head is the embedding itself, stored once."""

    encoder_decoder: bool
    dtype: str
    """Dtype of most weights in the checkpoint."""

    modules: tuple[ModuleGroup, ...]
    checkpoint_bytes: int | None
    """Size of the weight files."""

    download_bytes: int | None
    """What a download of everything that loading reads would transfer; None for what is on this machine."""

    licence: str | None
    gated: bool
    notes: tuple[str, ...] = ()
    """What is uncertain or surprising, one sentence each."""

    rotary_dim: int = 0
    """Features of a head that its position rotates, `head_dim` where all are."""

    usual: bool = True
    """Whether the switches in config.json that change a layer stand as in most models of the family."""

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.modules)

    @property
    def linear_layers(self) -> tuple[ModuleGroup, ...]:
        """The linear layers, the head not among them."""
        return tuple(group for group in self.modules if group.kind == "linear")

    @property
    def parameters_by_class(self) -> dict[ParameterClass, int]:
        """Parameters of each class that occurs. Everything of a vision tower counts as "vision"."""
        counts: dict[ParameterClass, int] = dict.fromkeys(CLASSES, 0)
        for group in self.modules:
            if group.vision:
                counts["vision"] += group.parameters
                continue
            of_norm = group.kind == "norm"
            counts[group.kind] += group.parameters if of_norm else group.weight_elements
            counts["bias"] += 0 if of_norm else group.count * group.bias_elements
        return {name: count for name, count in counts.items() if count}

    @property
    def dtypes_by_class(self) -> dict[ParameterClass, tuple[str, ...]]:
        """Checkpoint dtypes of each class; a bias has that of its module."""
        found: dict[ParameterClass, set[str]] = {}
        for group in self.modules:
            found.setdefault("vision" if group.vision else group.kind, set()).add(group.dtype)
            if group.bias_elements and group.kind != "norm" and not group.vision:
                found.setdefault("bias", set()).add(group.dtype)
        return {name: tuple(sorted(found[name])) for name in CLASSES if name in found}
