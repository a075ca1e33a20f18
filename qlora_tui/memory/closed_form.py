"""The peak of one training step in closed form, for models without a shipped memory program.

Read off the event traces of dry runs of Llama-shaped decoders; other shapes are mapped onto it, with a wider band.
n tokens of a batch, h hidden, f MLP width, q = heads x head size, k = key-value heads x head size, H heads, r rank,
V vocabulary, L layers. Bytes for a stream of 16-bit numbers; float32 ones take twice as much.
"""

from dataclasses import dataclass, field

from qlora_tui.memory.full_weights import FullWeights
from qlora_tui.memory.program import Phase, StepPeak
from qlora_tui.memory.symbols import TOKEN_TILE, VOCABULARY_TILE

SHAPED_LIKE_LLAMA = ("llama", "mistral", "qwen2", "smollm3", "starcoder2", "olmo2", "granite")
"""Families for which the formulas were within 2 % of full dry runs."""


@dataclass(frozen=True, slots=True)
class Step:
    """Everything a step's peak depends on."""

    rows: int
    row_tokens: int
    layers: int
    hidden: int
    mlp: int
    """Width of the MLP a token goes through: of all its experts together in a mixture."""

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
    """The largest weight as it is multiplied, and what dequantizing it needs beside it; 0 without quantization."""

    gradient_bytes: int
    gradients_kept: bool
    """Gradients live through the forward pass: several micro batches make a step."""

    materialized: bool = False
    """Attention on a CPU that PyTorch computes step by step: grouped heads or a mask have no fused kernel there."""

    on_cpu: bool = False
    experts_per_token: int = 0
    optimizer_step_bytes: int = 0
    dora: bool = False
    full: FullWeights = field(default_factory=FullWeights)

    @property
    def wide(self) -> bool:
        """Whether the residual stream is float32, and autocast casts what linear layers are given."""
        return self.full.copied_bytes > 0

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens

    @property
    def scale(self) -> float:
        return self.stream_bytes / 2


_Point = tuple[Phase, int | None, dict[str, float]]


def peak(step: Step) -> StepPeak:
    """Most bytes that a step holds beside what is stored all the time, and of what they are at that point."""
    full, gradients = step.full, step.gradient_bytes
    kept = gradients if step.gradients_kept else 0
    saved = step.layers * (checkpoint_bytes(step) if step.checkpointing else saved_bytes(step))
    work, head = {"dequantization": step.dequantized_bytes, "attention": attention_bytes(step)}, _loss(step)
    forward = saved + (full.copied_bytes if full.cached or not step.checkpointing else 0)
    behind = saved + (0 if step.checkpointing else full.copied_bytes)
    points: list[_Point] = [
        ("loss", None, {"activations": forward, "loss": head + full.piece_bytes, "gradients": kept}),
        ("loss", None, {"activations": behind, "loss": head + full.loss_bytes, "gradients": kept}),
        ("step", None, {"gradients": gradients, "optimizer": step.optimizer_step_bytes}),
        ("forward", step.layers - 1, {**work, "activations": forward, "gradients": kept}),
        ("backward", 0, {"gradients": gradients + full.embedding_bytes * (full.tied + step.gradients_kept)}),
    ]
    if step.checkpointing:
        points += _recomputing(step, saved, work, kept)
    return _highest(points)


def _recomputing(step: Step, saved: int, work: dict[str, int], kept: int) -> list[_Point]:
    """The backward pass of the last layer, when most checkpoints are left, and of the first, with most gradients."""
    full, gradients = step.full, step.gradient_bytes
    layer = recompute_bytes(step) + full.copied_bytes // step.layers
    # The gradient of a head of its own is added to what was kept; that of one that is the embedding waits for it.
    waiting = full.head_bytes if full.tied or not kept else 0
    at_first = gradients + (waiting if kept else 0) - (0 if full.tied or kept else full.embedding_bytes)
    return [
        ("backward", step.layers - 1, {**work, "activations": saved + layer, "gradients": kept + waiting}),
        ("backward", 0, {**work, "activations": layer + checkpoint_bytes(step), "gradients": at_first}),
    ]


def checkpoint_bytes(step: Step) -> int:
    """Kept of each layer with checkpointing: its input."""
    return step.tokens * step.hidden * _checkpoint_item_bytes(step)


def _checkpoint_item_bytes(step: Step) -> int:
    return 4 if step.recipe == "original" or step.wide or step.dora else step.stream_bytes


_Coefficients = tuple[int, int, int, int, int]
"""Bytes for each element of a token: of f, h, q, k and r."""


def saved_bytes(step: Step) -> int:
    """Kept of each layer for its backward pass without checkpointing."""
    return round(_of_tokens(step, _saved(step)) + step.tokens * 4 * step.heads) + _saved_scores(step)


def recompute_bytes(step: Step) -> int:
    """Most that the backward pass of one layer holds: its activations computed again, and their gradients."""
    return round(_of_tokens(step, _recomputed(step)))


def formulas(step: Step, found: StepPeak) -> dict[str, str]:
    """How each category at the peak `found` is counted, in the names of `numbers`."""
    stream = step.stream_bytes
    copied = "copied weights / layers" if step.full.copied_bytes else ""
    layer = _sum(f"n x ({_per_token(step, _recomputed(step))})", copied)
    checkpoint = f"{_checkpoint_item_bytes(step)} x n x h"
    kept = f"layers x ({_kept(step)})" if not step.checkpointing else f"layers x {checkpoint}"
    in_layers = {step.layers - 1: f"{kept} + {layer}", 0: f"{checkpoint} + {layer}"}
    copies, rest = (3 if step.on_cpu else 1), (5 if step.checkpointing else 3) * stream
    backward = step.full.loss_bytes > 0 and found.by_category.get("loss") == round(_loss(step) + step.full.loss_bytes)
    if step.full.copied_bytes and not (step.checkpointing and (backward or not step.full.cached)):
        kept += " + copied weights"
    return {
        "activations": in_layers.get(found.layer or 0, kept) if found.phase == "backward" else kept,
        "attention": _sum(_mask(step), _of_scores(_worked(step))),
        "dequantization": "the largest quantized weight in the compute dtype; adapted experts in full",
        "loss": f"min(rows x (tokens - 1), {TOKEN_TILE}) x min(vocabulary, {VOCABULARY_TILE}) x {stream * copies}"
        f" + {rest} x n x h{_of_head(step.full, backward)}",
        "gradients": _of_gradients(step, found),
        "optimizer": "what the optimizer copies while it steps",
    }


def _of_head(full: FullWeights, backward: bool) -> str:
    pieces = f" + {2 if backward else 1} x piece of the head" if full.piece_bytes else ""
    if not (backward and full.head_elements):
        return pieces
    each = full.head_bytes // full.head_elements
    return f" + 4 x trained head{f' + {each} x trained head' if each < 4 else ''}{pieces}"


def _of_gradients(step: Step, found: StepPeak) -> str:
    more = found.by_category.get("gradients", 0) - step.gradient_bytes
    return f"trained bytes{' + gradients of tables' if more > 0 else ' - gradients of tables' if more else ''}"


def numbers(step: Step, found: StepPeak) -> dict[str, int]:
    """What the names in `formulas` stand for."""
    return {
        "n": step.tokens,
        "rows": step.rows,
        "tokens": step.row_tokens,
        "layers": step.layers,
        "h": step.hidden,
        "f": step.mlp,
        "q": step.q,
        "k": step.k,
        "r": step.rank,
        "heads": step.heads,
        "vocabulary": step.vocab,
        "trained bytes": step.gradient_bytes,
        "copied weights": step.full.copied_bytes,
        "trained head": step.full.head_elements,
        "piece of the head": step.full.piece_bytes,
        "gradients of tables": abs(found.by_category.get("gradients", 0) - step.gradient_bytes),
    }


def _kept(step: Step) -> str:
    return _sum(f"n x ({_per_token(step, _saved(step))} + 4 x heads)", _of_scores(_kept_scores(step)))


def _per_token(step: Step, coefficients: _Coefficients) -> str:
    f, h, q, k, r = (round(each * step.scale) for each in coefficients)
    return f"{f} x f + {h} x h + {q} x q + {k} x k + {r} x r"


def _of_scores(item_bytes: float) -> str:
    return f"{item_bytes:g} x rows x heads x tokens x tokens" if item_bytes else ""


def _mask(step: Step) -> str:
    return "3 x rows x tokens x tokens" if step.masked else ""


def _sum(*parts: str) -> str:
    return " + ".join(filter(None, parts))


_DORA = ((26, 28, 14, 20, 14), (34, 24, 10, 16, 12))
"""Its magnitudes are float32, so that the outputs of adapted layers are: kept of a layer, and as it is recomputed."""

_DORA_ON_CPU = ((14, 16, 8, 10, 14), (20, 15, 7, 10, 12))
"""Counted, not measured: where all is float32, in halves of it."""

_WIDE = ((8, 26, 10, 10, 14), (14, 30, 16, 12, 12))
"""Of float32 weights that autocast multiplies in 16 bits."""


def _of_wide(step: Step) -> tuple[_Coefficients, _Coefficients]:
    return _WIDE if not step.dora else _DORA_ON_CPU if step.on_cpu else _DORA


def _saved(step: Step) -> _Coefficients:
    if step.dora or step.wide:
        return _of_wide(step)[0]
    gated, plain, wide, h, q = (14, 8, 15, 18, 4) if step.recipe == "original" else (8, 4, 9, 12, 4)
    mlp = (wide if step.dropout else gated) if step.gated else plain + step.dropout
    h, q = (23, 7) if step.dropout else (h, q)
    return mlp, h + 6 * step.experts_per_token, q, 4, 14


def _recomputed(step: Step) -> _Coefficients:
    if step.dora or step.wide:
        return _of_wide(step)[1]
    if step.recipe == "original":
        mlp, h, q, r = (23, 33, 7, 0) if step.dropout else (18, 26, 4, 0)
    else:
        mlp, h, q, r = (8, 33, 7, 0) if step.dropout else (10, 14, 4, 12)
    return mlp if step.gated else round(mlp * 0.6), h + 10 * step.experts_per_token, q, 4, r


def _of_tokens(step: Step, coefficients: _Coefficients) -> float:
    f, h, q, k, r = coefficients
    per_token = f * step.mlp + h * step.hidden + q * step.q + k * step.k + r * step.rank
    return step.tokens * per_token * step.scale


def attention_bytes(step: Step) -> int:
    """What attention needs beyond its inputs: nothing when fused; scores in several copies when not; a 4-D mask."""
    mask = 3 * step.rows * step.row_tokens**2 if step.masked else 0
    return mask + round(_worked(step) * _scores(step))


def _worked(step: Step) -> float:
    """Bytes for each score that attention works with."""
    return 9 * step.scale if step.eager else 12 if step.materialized else 0


def loss_bytes(step: Step) -> int:
    """TRL's tiled loss: logits of at most 4,096 tokens and 32,768 words at a time, and the hidden states' gradient."""
    scored = min(step.rows * (step.row_tokens - 1), TOKEN_TILE)
    tile = scored * min(step.vocab, VOCABULARY_TILE) * step.stream_bytes
    return tile * (3 if step.on_cpu else 1) + 3 * step.stream_bytes * step.tokens * step.hidden


def _loss(step: Step) -> float:
    """The same beside the last layer's output and its gradient, which checkpointing does not keep."""
    return loss_bytes(step) + (4 * step.tokens * step.hidden * step.scale if step.checkpointing else 0)


def _saved_scores(step: Step) -> int:
    return round(_kept_scores(step) * _scores(step))


def _kept_scores(step: Step) -> float:
    """Kept of attention for the backward pass: float32 probabilities and their dropped or masked copies."""
    return 6 * step.scale if step.eager else (8 if step.masked else 4) if step.materialized else 0


def _scores(step: Step) -> int:
    return step.rows * step.heads * step.row_tokens**2


def _highest(points: list[_Point]) -> StepPeak:
    by_phase: dict[str, int] = {}
    for phase, _, parts in points:
        by_phase[phase] = max(by_phase.get(phase, 0), round(sum(parts.values())))
    phase, layer, parts = max(points, key=lambda point: sum(point[2].values()))
    return StepPeak(
        peak_bytes=round(sum(parts.values())),
        by_category={name: round(size) for name, size in parts.items() if size > 0},
        phase=phase,
        layer=layer,
        by_phase=by_phase,
    )
