"""Several cards: what of a run is split among them and what each holds in full."""

from qlora_tui.memory.phases import Phase, Run
from qlora_tui.memory.terms import Term, scaled

_SHARDED = (
    "packed_weights",
    "tables",
    "experts",
    "other_weights",
    "adapter",
    "optimizer",
    "optimizer_paged",
    "gradients",
)
_BY_LAYER = (
    "packed_weights", "quantization_constants", "experts", "other_weights", "adapter", "optimizer", "optimizer_paged",
    "gradients", "activations",
)  # fmt: skip
_DDP_BUCKETS = "gradients of all cards are gathered in buckets, one more copy"


def fullest(run: Run, phase: Phase, terms: list[Term]) -> list[Term]:
    """What the fullest card holds, from what one card alone would hold.

    ddp: everything, and a second copy of the gradients in buckets. fsdp: an equal share of weights, adapter, gradients
    and optimizer state, but all quantization constants, and two layers gathered in full. layer split: its layers; the
    last card has the loss, and the head.
    """
    count, strategy = run.device.count, run.device.strategy
    if count == 1 or strategy == "single":
        return terms
    if strategy == "ddp":
        return [*terms, *_buckets(terms)]
    if strategy == "fsdp":
        return [*(scaled(term, 1 / count) if term.key in _SHARDED else term for term in terms), _gathered(run, terms)]
    layers = -(-run.facts.layers // count) / max(run.facts.layers, 1)
    return [scaled(term, layers) if term.key in _BY_LAYER else term for term in terms]


def needs(run: Run, need_bytes: int) -> tuple[int, ...]:
    """What each card needs, the fullest one `need_bytes`; under a layer split the earlier ones hold no loss."""
    count = run.device.count if run.device.strategy != "single" else 1
    if run.device.strategy != "layer split" or count == 1:
        return (need_bytes,) * count
    lighter = need_bytes - run.step.peak.by_category.get("loss", 0)
    return (*(lighter,) * (count - 1), need_bytes)


def _buckets(terms: list[Term]) -> list[Term]:
    gradients = next((term for term in terms if term.key == "gradients"), None)
    return [Term("buckets", "gradient buckets", gradients.bytes, _DDP_BUCKETS, {})] if gradients else []


def _gathered(run: Run, terms: list[Term]) -> Term:
    layers = max(run.facts.layers, 1)
    by_layer = sum(
        term.bytes for term in terms if term.key in ("packed_weights", "experts", "other_weights", "adapter")
    )
    tables = sum(term.bytes for term in terms if term.key == "tables")
    size = 2 * by_layer // layers + tables
    return Term("gathered", "layers gathered", size, "2 layers, embeddings and head in full", {"layers": layers})
