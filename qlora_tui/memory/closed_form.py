"""The peak of one training step in closed form, for models without a shipped memory program.

Read off the event traces of dry runs of Llama-shaped decoders; other shapes are mapped onto it, with a wider band.
"""

from qlora_tui.memory.full_weights import FullWeights
from qlora_tui.memory.layer_form import (
    Moment,
    Step,
    attention_bytes,
    checkpoint_bytes,
    checkpoint_item_bytes,
    kept_of_token,
    kept_scores,
    largest_norm,
    moments,
    saved_bytes,
    worked,
)
from qlora_tui.memory.program import Phase, StepPeak
from qlora_tui.memory.symbols import TOKEN_TILE, VOCABULARY_TILE

SHAPED_LIKE_LLAMA = ("llama", "mistral", "qwen2", "smollm3", "starcoder2", "olmo2", "granite")
"""Families for which the formulas were within 2 % of full dry runs."""


_Point = tuple[Phase, int | None, dict[str, float]]


def peak(step: Step) -> StepPeak:
    """Most bytes that a step holds beside what is stored all the time, and of what they are at that point."""
    full, gradients = step.full, step.gradient_bytes
    kept = gradients if step.gradients_kept else 0
    saved = step.layers * (checkpoint_bytes(step) if step.checkpointing else saved_bytes(step))
    work = {"dequantization": step.dequantized_bytes + largest_norm(step), "attention": attention_bytes(step)}
    forward = saved + (full.copied_bytes if full.cached or not step.checkpointing else 0)
    behind, head = saved + (0 if step.checkpointing else full.copied_bytes), _loss(step)
    points: list[_Point] = [
        ("loss", None, {"activations": forward, "loss": head + full.piece_bytes, "gradients": kept}),
        ("loss", None, {"activations": behind, "loss": head + full.loss_bytes, "gradients": kept}),
        ("step", None, {"gradients": gradients, "optimizer": step.optimizer_step_bytes}),
        ("forward", step.layers - 1, {**work, "activations": forward, "gradients": kept}),
        ("backward", 0, {"gradients": gradients + full.embedding_bytes * (full.tied + step.gradients_kept)}),
    ]
    if step.checkpointing:
        for moment in moments(step):
            points += _recomputing(step, moment, saved, kept)
    return _highest(points)


def _recomputing(step: Step, moment: Moment, saved: int, kept: int) -> list[_Point]:
    """The backward pass of the last layer, when most checkpoints are left, and of the first, with most gradients."""
    full, gradients = step.full, step.gradient_bytes
    work = {"dequantization": moment.dequantized_bytes, "attention": attention_bytes(step)}
    layer = _recomputed_bytes(step, moment)
    # The gradient of a head of its own is added to what was kept; that of one that is the embedding waits for it.
    waiting = full.head_bytes if full.tied or not kept else 0
    at_first = gradients + (waiting if kept else 0) - (0 if full.tied or kept else full.embedding_bytes)
    return [
        ("backward", step.layers - 1, {**work, "activations": saved + layer, "gradients": kept + waiting}),
        ("backward", 0, {**work, "activations": layer + checkpoint_bytes(step), "gradients": at_first}),
    ]


def _recomputed_bytes(step: Step, moment: Moment) -> int:
    return round(step.tokens * moment.activations.bytes(step)) + step.full.copied_bytes // step.layers


def formulas(step: Step, found: StepPeak) -> dict[str, str]:
    """How each category at the peak `found` is counted, in the names of `numbers`."""
    stream = step.stream_bytes
    copied = "copied weights / layers" if step.full.copied_bytes else ""
    layer = _sum(f"n x ({_moment(step, found).activations.formula()})", copied)
    checkpoint = f"{checkpoint_item_bytes(step)} x n x h"
    kept = f"layers x ({_kept(step)})" if not step.checkpointing else f"layers x {checkpoint}"
    in_layers = {step.layers - 1: f"{kept} + {layer}", 0: f"{checkpoint} + {layer}"}
    copies, rest = (3 if step.on_cpu else 1), (5 if step.checkpointing else 3) * stream
    backward = step.full.loss_bytes > 0 and found.by_category.get("loss") == round(_loss(step) + step.full.loss_bytes)
    if step.full.copied_bytes and not (step.checkpointing and (backward or not step.full.cached)):
        kept += " + copied weights"
    return {
        "activations": in_layers.get(found.layer or 0, kept) if found.phase == "backward" else kept,
        "attention": _sum(_mask(step), _of_scores(worked(step))),
        "dequantization": "the largest quantized weight in the compute dtype; what DoRA's norm takes; adapted experts",
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
    of_adapted = kept_of_token(step).adapted
    return {
        "n": step.tokens,
        "rows": step.rows,
        "tokens": step.row_tokens,
        "layers": step.layers,
        "h": step.hidden,
        "f": step.mlp,
        "q": step.q,
        "k": step.k,
        "adapted layers": round(of_adapted),
        "heads": step.heads,
        "vocabulary": step.vocab,
        "trained bytes": step.gradient_bytes,
        "copied weights": step.full.copied_bytes,
        "trained head": step.full.head_elements,
        "piece of the head": step.full.piece_bytes,
        "gradients of tables": abs(found.by_category.get("gradients", 0) - step.gradient_bytes),
    }


def _kept(step: Step) -> str:
    return _sum(f"n x ({kept_of_token(step).formula()})", _of_scores(kept_scores(step)))


def _moment(step: Step, found: StepPeak) -> Moment:
    """The point of a layer's recomputation at which the peak occurs."""
    held = found.by_category.get("activations", 0)
    checkpoints = checkpoint_bytes(step) * (step.layers if found.layer else 1)
    return min(moments(step), key=lambda moment: abs(held - checkpoints - _recomputed_bytes(step, moment)))


def _of_scores(item_bytes: float) -> str:
    return f"{item_bytes:g} x rows x heads x tokens x tokens" if item_bytes else ""


def _mask(step: Step) -> str:
    return "3 x rows x tokens x tokens" if step.masked else ""


def _sum(*parts: str) -> str:
    return " + ".join(filter(None, parts))


def loss_bytes(step: Step) -> int:
    """TRL's tiled loss: logits of at most 4,096 tokens and 32,768 words at a time, and the hidden states' gradient."""
    scored = min(step.rows * (step.row_tokens - 1), TOKEN_TILE)
    tile = scored * min(step.vocab, VOCABULARY_TILE) * step.stream_bytes
    return tile * (3 if step.on_cpu else 1) + 3 * step.stream_bytes * step.tokens * step.hidden


def _loss(step: Step) -> float:
    """The same beside the last layer's output and its gradient, which checkpointing does not keep."""
    return loss_bytes(step) + (4 * step.tokens * step.hidden * step.scale if step.checkpointing else 0)


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
