"""The peak of one training step in closed form, for models without a shipped memory program.

Read off the event traces of dry runs of Llama-shaped decoders; other shapes are mapped onto it, with a wider band.
n tokens of a batch, h hidden, f MLP width, q = heads x head size, k = key-value heads x head size, H heads, r rank,
V vocabulary, L layers. Bytes for a stream of 16-bit numbers; float32 ones take twice as much.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens

    @property
    def scale(self) -> float:
        return self.stream_bytes / 2


def peak(step: Step) -> StepPeak:
    """Most bytes that a step holds beside what is stored all the time, and of what they are at that point."""
    gradients = step.gradient_bytes
    kept = gradients if step.gradients_kept else 0
    saved = step.layers * (checkpoint_bytes(step) if step.checkpointing else saved_bytes(step))
    layer = recompute_bytes(step)
    attention = attention_bytes(step)
    head = loss_bytes(step) + (4 * step.tokens * step.hidden * step.scale if step.checkpointing else 0)
    points: list[tuple[Phase, int | None, dict[str, float]]] = [
        ("loss", None, {"activations": saved, "loss": head, "gradients": kept}),
        ("step", None, {"gradients": gradients, "optimizer": step.optimizer_step_bytes}),
        ("forward", step.layers - 1, {"activations": saved, "dequantization": step.dequantized_bytes,
                                      "attention": attention, "gradients": kept}),
    ]  # fmt: skip
    if step.checkpointing:
        work: dict[str, float] = {
            "activations": layer,
            "dequantization": step.dequantized_bytes,
            "attention": attention,
        }
        first = {**work, "activations": layer + checkpoint_bytes(step), "gradients": gradients}
        points += [
            ("backward", step.layers - 1, {**work, "activations": saved + layer, "gradients": kept}),
            ("backward", 0, first),
        ]
    return _highest(points)


def checkpoint_bytes(step: Step) -> int:
    """Kept of each layer with checkpointing: its input."""
    return step.tokens * step.hidden * (4 if step.recipe == "original" else step.stream_bytes)


_Coefficients = tuple[int, int, int, int]
"""Bytes for each element of a token: of f, h, q and r. k always has 4."""


def saved_bytes(step: Step) -> int:
    """Kept of each layer for its backward pass without checkpointing."""
    return round(_of_tokens(step, _saved(step)) + step.tokens * 4 * step.heads) + _saved_scores(step)


def recompute_bytes(step: Step) -> int:
    """Most that the backward pass of one layer holds: its activations computed again, and their gradients."""
    return round(_of_tokens(step, _recomputed(step)))


def formulas(step: Step, found: StepPeak) -> dict[str, str]:
    """How each category at the peak `found` is counted, in the names of `numbers`."""
    stream = step.stream_bytes
    layer = f"n x ({_per_token(step, _recomputed(step))})"
    checkpoint = f"{checkpoint_bytes(step) // (step.tokens * step.hidden)} x n x h"
    kept = f"layers x ({_kept(step)})" if not step.checkpointing else f"layers x {checkpoint}"
    in_layers = {step.layers - 1: f"{kept} + {layer}", 0: f"{checkpoint} + {layer}"}
    copies, rest = (3 if step.on_cpu else 1), (5 if step.checkpointing else 3) * stream
    return {
        "activations": in_layers.get(found.layer or 0, kept) if found.phase == "backward" else kept,
        "attention": _sum(_mask(step), _of_scores(_worked(step))),
        "dequantization": "the largest quantized weight in the compute dtype; adapted experts in full",
        "loss": f"min(rows x (tokens - 1), {TOKEN_TILE}) x min(vocabulary, {VOCABULARY_TILE}) x {stream * copies}"
        f" + {rest} x n x h",
        "gradients": "trained bytes",
        "optimizer": "what the optimizer copies while it steps",
    }


def numbers(step: Step) -> dict[str, int]:
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
    }


def _kept(step: Step) -> str:
    return _sum(f"n x ({_per_token(step, _saved(step))} + 4 x heads)", _of_scores(_kept_scores(step)))


def _per_token(step: Step, coefficients: _Coefficients) -> str:
    f, h, q, r = (round(each * step.scale) for each in coefficients)
    return f"{f} x f + {h} x h + {q} x q + {round(4 * step.scale)} x k + {r} x r"


def _of_scores(item_bytes: float) -> str:
    return f"{item_bytes:g} x rows x heads x tokens x tokens" if item_bytes else ""


def _mask(step: Step) -> str:
    return "3 x rows x tokens x tokens" if step.masked else ""


def _sum(*parts: str) -> str:
    return " + ".join(filter(None, parts))


def _saved(step: Step) -> _Coefficients:
    gated, plain, wide, h, q = (14, 8, 15, 18, 4) if step.recipe == "original" else (8, 4, 9, 12, 4)
    mlp = (wide if step.dropout else gated) if step.gated else plain + step.dropout
    h, q = (23, 7) if step.dropout else (h, q)
    return mlp, h + 6 * step.experts_per_token, q, 14


def _recomputed(step: Step) -> _Coefficients:
    if step.recipe == "original":
        mlp, h, q, r = (23, 33, 7, 0) if step.dropout else (18, 26, 4, 0)
    else:
        mlp, h, q, r = (8, 33, 7, 0) if step.dropout else (10, 14, 4, 12)
    return mlp if step.gated else round(mlp * 0.6), h + 10 * step.experts_per_token, q, r


def _of_tokens(step: Step, coefficients: _Coefficients) -> float:
    f, h, q, r = coefficients
    per_token = f * step.mlp + h * step.hidden + q * step.q + 4 * step.k + r * step.rank
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


def _saved_scores(step: Step) -> int:
    return round(_kept_scores(step) * _scores(step))


def _kept_scores(step: Step) -> float:
    """Kept of attention for the backward pass: float32 probabilities and their dropped or masked copies."""
    return 6 * step.scale if step.eager else (8 if step.masked else 4) if step.materialized else 0


def _scores(step: Step) -> int:
    return step.rows * step.heads * step.row_tokens**2


def _highest(points: list[tuple[Phase, int | None, dict[str, float]]]) -> StepPeak:
    by_phase: dict[str, int] = {}
    for phase, _, parts in points:
        by_phase[phase] = max(by_phase.get(phase, 0), round(sum(parts.values())))
    phase, layer, parts = max(points, key=lambda point: sum(point[2].values()))
    return StepPeak(
        peak_bytes=round(sum(parts.values())),
        by_category=_whole(parts),
        phase=phase,
        layer=layer,
        by_phase=by_phase,
    )


def _whole(parts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(size) for name, size in parts.items() if size > 0}
