"""Changes of a run that need less memory, in the order of what they cost, from nothing at all to another training."""

from collections.abc import Iterator
from dataclasses import dataclass

from qlora_tui.config.run import RunConfig
from qlora_tui.memory.estimate import Estimate
from qlora_tui.memory.targets import targets
from qlora_tui.models.facts import ModelFacts

Changes = tuple[str, ...]
"""Settings as `--set` takes them."""

_SHORTEST_TOKENS = 128
_LOWEST_RANK = 4
PAGED_TWINS = {
    "adamw_torch": "paged_adamw_32bit",
    "adamw_torch_fused": "paged_adamw_32bit",
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "lion_32bit": "paged_lion_32bit",
    "lion_8bit": "paged_lion_8bit",
}


@dataclass(frozen=True, slots=True)
class Ladder:
    """One change by degrees, the smallest first."""

    steps: tuple[Changes, ...]
    cost: str


def ladders(config: RunConfig, facts: ModelFacts, now: Estimate) -> Iterator[Ladder]:
    """What could be changed, those that change the training least first. `now`: the run as it is."""
    yield from _same_training(config, now)
    yield from _same_aim(config, now)
    yield from _other_training(config, facts)


def _same_training(config: RunConfig, now: Estimate) -> Iterator[Ladder]:
    if config.model.attention == "eager":
        yield _one("the same training, and faster", "model.attention=sdpa")
    if not now.checkpointing:
        yield _one("the same training, about 1.3 times slower", "training.gradient_checkpointing=on")
    batches = tuple(_smaller_batches(config))
    if batches:
        yield Ladder(batches, "the same effective batch, a little slower")
    if now.choices.optimizer in PAGED_TWINS and now.choices.on_gpu and config.adapter.kind == "lora":
        yield _one("the same update, its states in paged memory",
                   f"training.optimizer={PAGED_TWINS[now.choices.optimizer]}")  # fmt: skip


def _smaller_batches(config: RunConfig) -> Iterator[Changes]:
    rows, accumulation = config.training.micro_batch_size, config.training.gradient_accumulation_steps
    while rows > 1:
        factor = 2 if rows % 2 == 0 else rows
        rows, accumulation = rows // factor, accumulation * factor
        yield f"training.micro_batch_size={rows}", f"training.gradient_accumulation_steps={accumulation}"


def _same_aim(config: RunConfig, now: Estimate) -> Iterator[Ladder]:
    """Other arithmetic; what is trained and on what stays."""
    quantization, optimizer = config.quantization, now.choices.optimizer
    if quantization.is_four_bit and not quantization.double_quantization:
        yield _one("the weights differ in their last digits", "quantization.double_quantization=true")
    if config.training.recipe == "original":
        yield _one("norms and residual stream in 16 bits", "training.recipe=lean")
    if optimizer in ("paged_adamw_32bit", "adamw_torch", "adamw_torch_fused") and now.choices.on_gpu:
        yield _one("optimizer states in 8 bits", "training.optimizer=paged_adamw_8bit")
    if quantization.kind in ("none", "8bit") and config.adapter.kind == "lora":
        yield _one("4-bit weights, a loss that the adapter mostly makes up for", "quantization.kind=nf4")
    if config.adapter.dropout:
        yield _one("no dropout on the adapter", "adapter.dropout=0")
    if config.adapter.dora:
        yield _one("LoRA instead of DoRA", "adapter.dora=false")


def _other_training(config: RunConfig, facts: ModelFacts) -> Iterator[Ladder]:
    adapter = config.adapter
    if any(target.group.kind == "expert" for target in targets(facts, adapter)):
        names = {group.name.rpartition(".")[2] for group in facts.linear_layers if "attn" in group.name}
        yield _one("the adapter leaves the experts alone", f"adapter.target_modules={','.join(sorted(names))}")
    if adapter.kind == "full":
        yield _one("an adapter on 4-bit weights instead of every weight", "adapter.kind=lora", "quantization.kind=nf4")
    elif ranks := tuple(_halves(adapter.rank, _LOWEST_RANK)):
        yield Ladder(tuple((f"adapter.rank={rank}",) for rank in ranks), "a smaller adapter")
    if lengths := tuple(_halves(config.training.max_length_tokens, _SHORTEST_TOKENS)):
        steps = tuple((f"training.max_length_tokens={length}",) for length in lengths)
        yield Ladder(steps, "longer rows are cut, dropped or split")
    if adapter.modules_to_save:
        yield _one("embeddings and head are not trained", "adapter.modules_to_save=[]")


def _halves(number: int, smallest: int) -> Iterator[int]:
    while number // 2 >= smallest:
        number //= 2
        yield number


def _one(cost: str, *changes: str) -> Ladder:
    return Ladder((changes,), cost)
