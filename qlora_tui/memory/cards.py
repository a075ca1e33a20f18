"""Several cards: what of a run is split among them and what each holds in full."""

from dataclasses import replace

from qlora_tui.errors import UsageError
from qlora_tui.memory import trainable
from qlora_tui.memory.phases import Phase, Run
from qlora_tui.memory.terms import Term, shared
from qlora_tui.models.facts import ModelFacts, ModuleGroup

_SHARDED = (
    "packed_weights", "tables", "experts", "other_weights", "adapter", "optimizer", "optimizer_paged", "gradients",
)  # fmt: skip


def parts(run: Run) -> list[Run]:
    """What each card trains: under a layer split its own layers, else everything. Those that are alike are one object.

    Raises UsageError for more cards than layers.
    """
    count, facts = run.device.count, run.facts
    if run.device.strategy != "layer split" or count == 1:
        return [run] * count
    if count > facts.layers:
        raise UsageError(
            f"{count} cards for the {facts.layers} layers of {facts.id}: a layer split needs a layer for each card",
            hint="Name fewer cards, or take --strategy ddp.",
        )
    each, more = divmod(facts.layers, count)
    found: dict[tuple[int, bool, bool], Run] = {}
    cards = []
    for card in range(count):
        share = each + (card < more), card == 0, card == count - 1
        cards.append(found.setdefault(share, replace(run, facts=_slice(facts, *share))))
    return cards


def _slice(facts: ModelFacts, layers: int, first: bool, last: bool) -> ModelFacts:
    """The layers of one card. The first one has the embedding, the last one the head; a tied head stays where the
    embedding is. A card without a head has no words to score."""
    head = first if facts.tied else last

    def here(group: ModuleGroup) -> bool:
        return {"embedding": first, "head": head, "norm": last}.get(group.kind, first)

    modules = []
    for group in facts.modules:
        if "*" in group.name and not group.vision:
            modules.append(replace(group, count=round(group.count * layers / facts.layers)))
        elif here(group):
            modules.append(group)
    return replace(
        facts,
        layers=layers,
        sliding_layers=round(facts.sliding_layers * layers / facts.layers),
        modules=tuple(group for group in modules if group.count),
        vocab_size=facts.vocab_size if head else 0,
    )


def held(run: Run, phase: Phase) -> list[Term]:
    """What a card holds at the peak of a phase.

    ddp: everything, and buckets for the gradients, which are there as long as it trains. fsdp: an equal share of
    weights, adapter, gradients and optimizer state, but all quantization constants, and two layers gathered in full.
    layer split: its layers.
    """
    terms, count, strategy = run.terms(phase), run.device.count, run.device.strategy
    if count == 1 or strategy == "single":
        return terms
    if strategy == "ddp":
        return [*terms, *_buckets(run)] if phase not in ("load", "prepare") else terms
    if strategy == "fsdp":
        return [*(shared(term, count) if term.key in _SHARDED else term for term in terms), _gathered(run, terms)]
    return terms if run.facts.vocab_size else _without_loss(run, terms)


def _without_loss(run: Run, terms: list[Term]) -> list[Term]:
    """A card that scores no words: the peak is what it is without the loss, or that of another phase of the step."""
    peak = run.step.peak
    elsewhere = max((size for phase, size in peak.by_phase.items() if phase != "loss"), default=0)

    def without(term: Term) -> Term:
        numbers = {"highest elsewhere": elsewhere, "step without it": peak.peak_bytes - term.bytes}
        size = max(0, elsewhere - numbers["step without it"])
        return Term(term.key, "rest of the step", size, "max(0, highest elsewhere - step without it)", numbers)

    return [without(term) if term.key == "loss" else term for term in terms]


def _buckets(run: Run) -> list[Term]:
    size = trainable.total_bytes(run.trained)
    return [Term("buckets", "gradient buckets", size, "trained bytes", {"trained bytes": size})] if size else []


def _gathered(run: Run, terms: list[Term]) -> Term:
    sizes = {term.key: term.bytes for term in terms}
    weights = sum(sizes.get(key, 0) for key in ("packed_weights", "experts", "other_weights", "adapter"))
    numbers = {"weights in layers": weights, "layers": max(run.facts.layers, 1), "tables": sizes.get("tables", 0)}
    size = 2 * weights // numbers["layers"] + numbers["tables"]
    return Term("gathered", "layers gathered", size, "2 x weights in layers / layers + tables", numbers)
