"""What would make a run fit, and the most that fits."""

import pytest

from qlora_tui.config.overrides import edited, resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.memory import advisor
from qlora_tui.memory.device import Device, card
from qlora_tui.memory.estimate import estimate, verdict
from qlora_tui.models import describe

FACTS = describe("meta-llama/Llama-3.1-8B", network=False)
CONTEXT_TOKENS = 131_072


def configured(*settings: str) -> RunConfig:
    return resolve(overrides=[f"model.id={FACTS.id}", "training.max_length_tokens=2048", *settings])


def fits(config: RunConfig, where: Device) -> bool:
    return verdict(estimate(config, FACTS, where), where.free_bytes).sure


def test_nothing_is_suggested_for_what_fits() -> None:
    assert advisor.suggestions(configured(), FACTS, card(24)) == ()


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
    found = advisor.suggestions(config, FACTS, where)
    assert found[0].changes == first and found[0].fits
    assert fits(edited(config, found[0].changes), where)
    assert all(each.saves_bytes > 0 for each in found)


def test_every_suggestion_keeps_its_promise() -> None:
    config, where = configured("training.gradient_checkpointing=off", "adapter.dropout=0.1"), card(12)
    found = advisor.suggestions(config, FACTS, where)
    assert found
    for each in found:
        changed = edited(config, each.changes)
        assert estimate(changed, FACTS, where).need_bytes == each.need_bytes
        assert fits(changed, where) == each.fits


def test_changes_that_are_too_small_alone_are_put_together() -> None:
    config = configured(
        "training.gradient_checkpointing=off", "training.micro_batch_size=4", "training.recipe=original",
        "quantization.kind=8bit",
    )  # fmt: skip
    where = card(8)
    best = advisor.suggestions(config, FACTS, where)[0]
    assert best.fits and len(best.changes) > 2
    assert fits(edited(config, best.changes), where)


def test_the_effective_batch_is_kept() -> None:
    config = configured("training.micro_batch_size=12", "training.gradient_accumulation_steps=3")
    [batch] = [each for each in advisor.suggestions(config, FACTS, card(10)) if "micro_batch" in each.changes[0]][:1]
    changed = edited(config, batch.changes).training
    assert changed.micro_batch_size * changed.gradient_accumulation_steps == 36


@pytest.mark.parametrize(
    ("quantity", "key"),
    [("batch", "training.micro_batch_size"), ("length", "training.max_length_tokens"), ("rank", "adapter.rank")],
)
@pytest.mark.parametrize("gb", [12, 24])
def test_the_largest_value_fits_and_the_next_one_does_not(quantity: advisor.Quantity, key: str, gb: float) -> None:
    where = card(gb)
    value = advisor.largest(configured(), FACTS, where, quantity)
    assert fits(configured(f"{key}={value}"), where)
    assert not fits(configured(f"{key}={value + 1}"), where)


def test_nothing_is_largest_where_nothing_fits() -> None:
    assert [advisor.largest(configured(), FACTS, card(4), each) for each in ("batch", "length", "rank")] == [0, 0, 0]


def test_a_length_ends_at_the_context_and_ignores_how_long_rows_are() -> None:
    small = describe("Qwen/Qwen3-0.6B", network=False)
    config = resolve(overrides=[f"model.id={small.id}"])
    assert small.context_tokens is not None
    assert advisor.largest(config, small, card(192), "length", longest_tokens=10) == small.context_tokens


def test_larger_cards_do_more() -> None:
    rows = advisor.table(configured("training.gradient_checkpointing=on"), FACTS)
    assert [row.size_gb for row in rows] == [8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192]
    for quantity in ("batch", "length_tokens", "rank"):
        values = [getattr(row, quantity) for row in rows]
        assert values == sorted(values) and values[0] < values[-1]
