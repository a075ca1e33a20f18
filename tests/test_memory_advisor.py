"""What would make a run fit, and the most that fits."""

from dataclasses import replace

import pytest

from qlora_tui.config.overrides import edited, resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.memory import advisor
from qlora_tui.memory.device import Device, card
from qlora_tui.memory.estimate import estimate, verdict
from qlora_tui.memory.estimate import fits as memory_fits
from qlora_tui.memory.largest import Quantity, largest
from qlora_tui.memory.table import table
from qlora_tui.models import ModelFacts, describe

FACTS = describe("meta-llama/Llama-3.1-8B", network=False)
CONTEXT_TOKENS = 131_072


def configured(*settings: str) -> RunConfig:
    return resolve(overrides=[f"model.id={FACTS.id}", "training.max_length_tokens=2048", *settings])


def fits(config: RunConfig, where: Device, *, replay: bool = False) -> bool:
    return verdict(estimate(config, FACTS, where, replay=replay), where.free_bytes).sure


def suggested(config: RunConfig, where: Device, facts: ModelFacts = FACTS) -> tuple[advisor.Suggestion, ...]:
    return advisor.suggestions(config, facts, estimate(config, facts, where))


def test_nothing_is_suggested_for_what_fits() -> None:
    assert suggested(configured(), card(24)) == ()


@pytest.mark.parametrize(
    ("settings", "gb", "first"),
    [
        (("training.gradient_checkpointing=off",), 16, ("training.gradient_checkpointing=on",)),
        (("model.attention=eager", "training.max_length_tokens=8192"), 16, ("model.attention=sdpa",)),
        (("training.micro_batch_size=8", "training.gradient_accumulation_steps=2"), 12,
         ("training.micro_batch_size=4", "training.gradient_accumulation_steps=4")),
        (("quantization.kind=none",), 16, ("quantization.kind=nf4",)),
    ],
)  # fmt: skip
def test_the_change_that_costs_least_comes_first_and_makes_it_fit(
    settings: tuple[str, ...], gb: float, first: tuple[str, ...]
) -> None:
    config, where = configured(*settings), card(gb)
    assert not fits(config, where)
    found = suggested(config, where)
    assert found[0].changes == first and found[0].fits
    assert fits(edited(config, found[0].changes), where)
    assert all(each.saves_bytes > 0 for each in found)


def test_every_suggestion_keeps_its_promise() -> None:
    config, where = configured("training.gradient_checkpointing=off", "adapter.dropout=0.1"), card(12)
    found = suggested(config, where)
    assert found
    for each in found:
        changed = edited(config, each.changes)
        assert estimate(changed, FACTS, where).need_bytes == each.need_bytes
        assert fits(changed, where) == each.fits


def test_what_is_suggested_with_replays_fits_by_the_whole_estimate() -> None:
    """Phi-4's allocations leave more gaps than is usual: four rows, or two, would be said to fit without a replay."""
    facts, where = describe("microsoft/phi-4", network=False), card(11.03)
    config = resolve(
        overrides=[f"model.id={facts.id}", "training.max_length_tokens=1024", "training.micro_batch_size=4",
                   "training.gradient_checkpointing=on", "adapter.rank=8"]
    )  # fmt: skip
    now = estimate(config, facts, where, replay=True)
    found = advisor.suggestions(config, facts, now, replay=True)
    assert any(each.fits for each in found)
    for each in found:
        if each.fits:
            changed = estimate(edited(config, each.changes), facts, where, replay=True)
            assert verdict(changed, where.free_bytes).sure and changed.need_bytes == each.need_bytes
            assert each.saves_bytes == now.need_bytes - changed.need_bytes <= now.need_bytes


def test_gaps_shrink_with_what_leaves_them() -> None:
    """Of seven packed rows the gaps are 32 GiB; of one, which is far smaller, they are not."""
    facts, where = describe("stabilityai/stablelm-2-1_6b", network=False), card(48)
    config = resolve(
        overrides=[f"model.id={facts.id}", "training.max_length_tokens=131072", "training.micro_batch_size=7",
                   "training.packing=true", "training.optimizer=sgd", "training.gradient_accumulation_steps=1",
                   "model.attention=flash_attention_2"]
    )  # fmt: skip
    found = advisor.suggestions(config, facts, estimate(config, facts, where, replay=True), replay=True)
    [batch] = [each for each in found if "micro_batch" in each.changes[0]]
    assert batch.fits and verdict(estimate(edited(config, batch.changes), facts, where), where.free_bytes).sure


def test_changes_that_are_too_small_alone_are_put_together() -> None:
    config = configured(
        "training.gradient_checkpointing=off", "training.micro_batch_size=4", "training.recipe=original",
        "quantization.kind=8bit",
    )  # fmt: skip
    where = card(8)
    best = suggested(config, where)[0]
    assert best.fits and len(best.changes) > 2
    assert fits(edited(config, best.changes), where)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite"])
def test_an_adapter_on_experts_can_leave_them_alone(model: str) -> None:
    facts = describe(model, network=False)
    config = resolve(overrides=[f"model.id={model}", "adapter.rank=64"])
    found = suggested(config, card(16), facts)
    [alone] = [each for each in found if "target_modules" in each.changes[0] and len(each.changes) == 1]
    trained = estimate(edited(config, alone.changes), facts, card(16)).trainable_parameters
    assert 0 < trained < estimate(config, facts, card(16)).trainable_parameters / 10
    assert alone.saves_bytes > 4 << 30


def test_the_effective_batch_is_kept() -> None:
    config = configured("training.micro_batch_size=12", "training.gradient_accumulation_steps=3")
    [batch] = [each for each in suggested(config, card(10)) if "micro_batch" in each.changes[0]][:1]
    changed = edited(config, batch.changes).training
    assert changed.micro_batch_size * changed.gradient_accumulation_steps == 36


@pytest.mark.parametrize(
    ("quantity", "key"),
    [("batch", "training.micro_batch_size"), ("length", "training.max_length_tokens"), ("rank", "adapter.rank")],
)
@pytest.mark.parametrize("gb", [12, 24])
def test_the_largest_value_fits_and_the_next_one_does_not(quantity: Quantity, key: str, gb: float) -> None:
    where = card(gb)
    value = largest(configured(), FACTS, where, quantity)
    assert fits(configured(f"{key}={value}"), where)
    assert not fits(configured(f"{key}={value + 1}"), where)


@pytest.mark.parametrize(
    ("quantity", "key"), [("batch", "training.micro_batch_size"), ("length", "training.max_length_tokens")]
)
def test_the_largest_value_with_replays_is_what_the_whole_estimate_lets_fit(quantity: Quantity, key: str) -> None:
    where, small = card(8), describe("meta-llama/Llama-3.2-1B", network=False)
    same = (f"model.id={small.id}", "training.gradient_checkpointing=on")
    value = largest(configured(*same), small, where, quantity, replay=True)

    def sure(value: int) -> bool:
        config = configured(*same, f"{key}={value}")
        return verdict(estimate(config, small, where, replay=True), where.free_bytes).sure

    assert sure(value) and not sure(value + 1 + value // 50)


def test_one_replay_gives_the_answer_of_the_search() -> None:
    """But for luck: a little below the smallest capacity that is found there may be others that will do."""
    small = describe("meta-llama/Llama-3.2-1B", network=False)
    config = resolve(overrides=[f"model.id={small.id}", "training.gradient_checkpointing=on"])
    need = estimate(config, small, card(24), replay=True).high_bytes
    assert memory_fits(config, small, replace(card(24), free_bytes=need + (16 << 20)))
    assert not memory_fits(config, small, replace(card(24), free_bytes=round(need * 0.9)))


def test_nothing_is_largest_where_nothing_fits() -> None:
    assert [largest(configured(), FACTS, card(4), each) for each in ("batch", "length", "rank")] == [0, 0, 0]


def test_a_length_ends_at_the_context_and_ignores_how_long_rows_are() -> None:
    small = describe("Qwen/Qwen3-0.6B", network=False)
    config = resolve(overrides=[f"model.id={small.id}"])
    assert small.context_tokens is not None
    assert largest(config, small, card(192), "length", longest_tokens=10) == small.context_tokens


def test_larger_cards_do_more() -> None:
    small = describe("meta-llama/Llama-3.2-1B", network=False)
    config = resolve(overrides=[f"model.id={small.id}", "training.gradient_checkpointing=on"])
    told: list[float] = []
    rows = table(config, small, (4, 8), told=told.append)
    assert [row.size_gb for row in rows] == told == [4, 8]
    for quantity in ("batch", "length_tokens", "rank"):
        values = [getattr(row, quantity) for row in rows]
        assert values == sorted(values) and values[0] < values[-1]
    assert [row.estimate.device for row in rows] == [card(4), card(8)]
