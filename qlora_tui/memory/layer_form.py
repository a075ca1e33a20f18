"""Closed-form memory of one layer: kept for the backward pass, and held while it is recomputed.

n tokens of a batch, h hidden, f MLP width, q = heads x head size, k = key-value heads x head size, H heads, r rank.
Bytes for a stream of 16-bit numbers; float32 ones take twice as much.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from qlora_tui.memory.adapted import Adapted, Place
from qlora_tui.memory.full_weights import FullWeights


@dataclass(frozen=True, slots=True)
class Step:
    """All inputs that the peak of a step depends on."""

    rows: int
    row_tokens: int
    layers: int
    hidden: int
    mlp: int
    """MLP width per token: summed over its active experts in a mixture of experts."""

    gated: bool
    q: int
    k: int
    heads: int
    vocab: int
    rank: int
    """0 without LoRA."""

    recipe: str
    stream_bytes: int
    """Of one element of the residual stream in the lean recipe: 2 or 4."""

    dropout: bool
    eager: bool
    masked: bool
    checkpointing: bool
    dequantized_bytes: int
    """The largest dequantized weight and the extra memory for dequantizing it; 0 without quantization."""

    gradient_bytes: int
    gradients_kept: bool
    """Whether gradients persist during the forward pass: a step has several micro batches."""

    materialized: bool = False
    """Attention on a CPU that PyTorch computes step by step: grouped heads or a mask have no fused kernel there."""

    on_cpu: bool = False
    experts_per_token: int = 0
    optimizer_step_bytes: int = 0
    dora: bool = False
    adapted: Adapted = field(default_factory=Adapted)
    full: FullWeights = field(default_factory=FullWeights)

    @property
    def wide(self) -> bool:
        """Whether the weights are float32 and autocast casts them."""
        return self.full.copied_bytes > 0 and not self.dora

    @property
    def wide_stream(self) -> bool:
        """Whether the residual stream is float32 where matrices are multiplied in 16 bits."""
        return self.recipe == "original" or (self.dora and not self.on_cpu and self.adapted.widens_stream)

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens

    @property
    def scale(self) -> float:
        return self.stream_bytes / 2


@dataclass(frozen=True, slots=True)
class PerToken:
    """Bytes for each element of a token."""

    mlp: float = 0
    hidden: float = 0
    q: float = 0
    k: float = 0
    heads: float = 0
    adapted: float = 0
    """Bytes in all of what the adapted layers keep."""

    def bytes(self, step: Step) -> float:
        sizes = self.mlp * step.mlp + self.hidden * step.hidden + self.q * step.q + self.k * step.k
        return sizes + self.heads * step.heads + self.adapted

    def formula(self) -> str:
        names = (("f", self.mlp), ("h", self.hidden), ("q", self.q), ("k", self.k), ("heads", self.heads))
        parts = [f"{each:g} x {name}" for name, each in names if each]
        return " + ".join([*parts, *(["adapted layers"] if self.adapted else [])])


@dataclass(frozen=True, slots=True)
class Moment:
    """A point at which a layer's memory may peak while it is recomputed."""

    activations: PerToken
    dequantized_bytes: int


def kept_of_token(step: Step) -> PerToken:
    """Memory per token that a layer keeps for its backward pass, without attention scores."""
    scale, adapted = step.scale, step.adapted
    if step.wide:
        return PerToken(8 * scale, 26 * scale, 10 * scale, 10 * scale, 4, 2 * adapted.modules * step.rank * scale)
    mlp = (12 if step.wide_stream else 6) if step.gated else 6 if step.wide_stream else 2
    of_adapted = adapted.kept_inputs(wide=step.wide_stream, dropout=step.dropout) + 2 * adapted.modules * step.rank
    if step.dora:
        of_adapted += adapted.kept_by_magnitudes(wide=step.wide_stream, dropout=step.dropout)
    hidden = 8 + 6 * step.experts_per_token
    return PerToken(mlp * scale, hidden * scale, 4 * scale, 4 * scale, 4, of_adapted * scale)


def saved_bytes(step: Step) -> int:
    """Bytes kept of a layer for its backward pass without checkpointing."""
    return round(step.tokens * kept_of_token(step).bytes(step)) + saved_scores(step)


def checkpoint_bytes(step: Step) -> int:
    """Bytes kept of a layer with checkpointing: its input."""
    return step.tokens * step.hidden * checkpoint_item_bytes(step)


def checkpoint_item_bytes(step: Step) -> int:
    """Bytes of one element of the residual stream."""
    return 4 if step.wide_stream or step.wide else step.stream_bytes


def moments(step: Step) -> Iterator[Moment]:
    """The points at which memory may peak during recomputation and backward pass of a layer."""
    whole = kept_of_token(step)
    if step.dora and not step.on_cpu:
        yield from _of_magnitudes(step, whole)
        return
    mlp, hidden = _more_while_recomputed(step)
    if not step.gated:
        mlp = 0.6 * (mlp + whole.mlp / step.scale) - whole.mlp / step.scale + 1
    hidden += 4 * step.experts_per_token
    q, k = (6, 2) if step.wide else (0, 0)
    scale = step.scale
    later = replace(
        whole, mlp=whole.mlp + mlp * scale, hidden=whole.hidden + hidden * scale, q=whole.q + q * scale,
        k=whole.k + k * scale, heads=0,
    )  # fmt: skip
    yield Moment(later, step.dequantized_bytes + largest_norm(step))


_SEPARATE_MODULES = 7
"""Number of linear layers in a layer without fused projections."""


def _more_while_recomputed(step: Step) -> tuple[float, float]:
    """Bytes per f and per h in addition to what a layer keeps, for the gradients of its last operations."""
    if step.wide:
        return 6, 4
    share = min(1.0, step.adapted.modules / _SEPARATE_MODULES) if step.dropout else 0.0
    if step.recipe == "original":
        return 4 + 4 * share, 8 + 2 * share
    return 2 - 3 * share, 2 + 8 * share


_STREAM_BYTES = 8
"""The last layer's output and the gradient of the residual stream, in float32."""


def _of_magnitudes(step: Step, whole: PerToken) -> Iterator[Moment]:
    """With DoRA: at the end of the MLP, or during the norm of a weight in attention, in the MLP, or at its end."""
    places, whole = step.adapted, replace(whole, hidden=whole.hidden + _STREAM_BYTES)
    if step.wide_stream:
        yield Moment(replace(whole, mlp=whole.mlp + 8, hidden=whole.hidden - 4), 0)
    else:
        yield Moment(replace(whole, hidden=whole.hidden + 4), step.dequantized_bytes)
    yield Moment(replace(whole, mlp=0), max(map(norm_bytes, (places.attention, places.closing))))
    if places.mlp.modules:
        yield Moment(replace(whole, mlp=whole.mlp + 8), norm_bytes(places.mlp, 8 + 2 * step.dropout))
    if places.down.modules:
        yield Moment(replace(whole, mlp=whole.mlp + 2, hidden=whole.hidden - 2), norm_bytes(places.down))


def largest_norm(step: Step) -> int:
    """Largest memory that DoRA needs for the norm of one weight."""
    return max(map(norm_bytes, step.adapted.places)) if step.dora else 0


def norm_bytes(place: Place, copies_bytes: int = 16) -> int:
    """Memory that DoRA needs for the norm of the largest weight: the weight, the product of the matrices, their sum
    and its square; and the identity matrix that PEFT multiplies the matrices by."""
    return copies_bytes * place.largest + 2 * place.widest**2


def attention_bytes(step: Step) -> int:
    """Memory of attention beyond its inputs: nothing if fused, else several copies of the scores; a 4-D mask."""
    mask = 3 * step.rows * step.row_tokens**2 if step.masked else 0
    return mask + round(worked(step) * _scores(step))


def worked(step: Step) -> float:
    """Bytes for each score that attention works with."""
    return 9 * step.scale if step.eager else 12 if step.materialized else 0


def saved_scores(step: Step) -> int:
    """Bytes of the scores that attention keeps."""
    return round(kept_scores(step) * _scores(step))


def kept_scores(step: Step) -> float:
    """Bytes kept of each score for the backward pass: float32 probabilities and their dropped or masked copies."""
    return 6 * step.scale if step.eager else (8 if step.masked else 4) if step.materialized else 0


def _scores(step: Step) -> int:
    return step.rows * step.heads * step.row_tokens**2
