"""The estimate: what it adds up to, how it moves with the settings, and what it says about the paper's models."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve
from qlora_tui.config.presets import find
from qlora_tui.errors import EnvironmentProblem, QloraError, UsageError
from qlora_tui.hardware import Gpu, Machine
from qlora_tui.memory import context, device
from qlora_tui.memory.device import GIB, Device, card
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.memory.record import entry
from qlora_tui.memory.savings import Saving, savings
from qlora_tui.memory.tensors import explained
from qlora_tui.memory.terms import Term
from qlora_tui.models import catalogue, describe
from qlora_tui.models.facts import ModelFacts

LLAMA_8B = "meta-llama/Llama-3.1-8B"
BASE = ("training.micro_batch_size=2", "training.max_length_tokens=2048", "training.gradient_checkpointing=on")
MIB = 1 << 20


def facts_of(model: str) -> ModelFacts:
    return describe(model, network=False)


def of(model: str, *settings: str, where: Device | None = None, longest: int | None = None) -> Estimate:
    config = resolve(overrides=[f"model.id={model}", *BASE, *settings])
    return estimate(config, facts_of(model), where or card(80), longest_tokens=longest)


@pytest.mark.parametrize(
    "where", [card(24), replace(card(24), count=4, strategy="fsdp"), device.host(hardware.snapshot())]
)
@pytest.mark.parametrize("model", ["starter", LLAMA_8B, "gpt2", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite"])
def test_the_terms_add_up_to_the_need_and_the_peak_is_the_highest_phase(model: str, where: Device) -> None:
    for settings in ((), ("training.recipe=original",), ("quantization.kind=8bit",), ("quantization.kind=none",)):
        found = of(model, *settings, where=where)
        assert sum(term.bytes for term in found.terms) == found.need_bytes + found.paged_bytes == found.full_bytes
        assert found.full_bytes == max(found.phases.values()) == found.phases[found.peak_phase]
        assert found.low_bytes <= found.need_bytes <= found.high_bytes
        assert all(term.bytes > 0 and term.label for term in found.terms)
        assert max(found.per_card) == found.need_bytes and len(found.per_card) == where.count


def test_what_a_plan_keeps_adds_up_when_the_optimizer_steps_at_the_peak() -> None:
    found = of("Qwen/Qwen3-0.6B", "adapter.kind=full", "quantization.kind=none", "training.optimizer=adamw_torch",
               "training.micro_batch_size=1", "training.max_length_tokens=128")  # fmt: skip
    kept = [term.bytes for term in found.terms if term.key == "optimizer"]
    terms = entry(found, card(80), None)["terms"]
    assert len(kept) == 2 and terms["optimizer"] == sum(kept)
    assert sum(terms.values()) == found.full_bytes


@pytest.mark.parametrize(
    ("names", "trained"),
    [("lm_head", 151936 * 1024), ("head", 151936 * 1024), ("embed_tokens", 151936 * 1024), ("tokens", 151936 * 1024),
     ("norm", 28 * (2 * 1024 + 2 * 128) + 1024)],
)  # fmt: skip
def test_modules_to_save_match_as_peft_matches_them(names: str, trained: int) -> None:
    """By the end of a path, dots or not; the head of this model is its embedding."""
    plain, saved = (of("Qwen/Qwen3-0.6B", *more) for more in ((), (f"adapter.modules_to_save={names}",)))
    assert saved.trainable_parameters - plain.trainable_parameters == trained


def test_models_of_every_kind_have_an_estimate_within_its_bounds() -> None:
    for model in catalogue.ids()[::4]:
        found = of(model, "training.micro_batch_size=1")
        assert found.stored_bytes < found.need_bytes < found.high_bytes, model


@pytest.mark.parametrize(
    ("setting", "values"),
    [("training.micro_batch_size", (1, 2, 3, 8)), ("training.max_length_tokens", (256, 512, 2048, 5000)),
     ("adapter.rank", (4, 8, 64, 256))],
)  # fmt: skip
@pytest.mark.parametrize("recipe", ["lean", "original"])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_more_of_anything_needs_more(setting: str, values: tuple[int, ...], recipe: str, checkpointing: str) -> None:
    same = (f"training.recipe={recipe}", f"training.gradient_checkpointing={checkpointing}")
    needs = [of(LLAMA_8B, *same, f"{setting}={value}").full_bytes for value in values]
    assert needs == sorted(needs) and needs[0] < needs[-1]


@pytest.mark.parametrize(
    ("worse", "better"),
    [("quantization.kind=none", "quantization.kind=8bit"), ("quantization.kind=8bit", "quantization.kind=nf4"),
     ("quantization.double_quantization=false", "quantization.double_quantization=true"),
     ("training.gradient_checkpointing=off", "training.gradient_checkpointing=on"),
     ("training.recipe=original", "training.recipe=lean"), ("model.attention=eager", "model.attention=sdpa"),
     ("adapter.dropout=0.1", "adapter.dropout=0"),
     ("training.optimizer=paged_adamw_32bit", "training.optimizer=paged_adamw_8bit"),
     ("adapter.target_modules=all-linear", "adapter.target_modules=q_proj,v_proj")],
)  # fmt: skip
def test_what_saves_memory_is_estimated_to_save_memory(worse: str, better: str) -> None:
    assert of(LLAMA_8B, worse).full_bytes > of(LLAMA_8B, better).full_bytes


def test_a_known_longest_row_lowers_the_need_but_never_beyond_the_limit() -> None:
    assert of(LLAMA_8B, longest=300).need_bytes < of(LLAMA_8B, longest=2048).need_bytes
    assert of(LLAMA_8B, longest=9000).need_bytes == of(LLAMA_8B).need_bytes
    packed = of(LLAMA_8B, "training.packing=true", longest=300)
    assert packed.rows * packed.row_tokens == 2 * 2048


def test_a_dry_run_of_llama_8b_is_met_within_three_percent() -> None:
    """Dry runs on fake tensors (lean recipe, 2 x 2048, r = 16, paged 8-bit AdamW): GiB allocated by PyTorch."""
    same = ("training.optimizer=paged_adamw_8bit", "training.gradient_accumulation_steps=1")
    for settings, gib in (
        ((), 7.40),
        (("quantization.double_quantization=false",), 7.70),
        (("adapter.rank=64",), 7.61),
    ):
        found = of(LLAMA_8B, *same, *settings)
        assert found.peak_bytes / GIB == pytest.approx(gib, rel=0.03), settings


def test_checkpointing_is_switched_on_only_where_it_is_needed() -> None:
    automatic = "training.gradient_checkpointing=auto"
    assert not of("Qwen/Qwen3-0.6B", automatic, where=card(80)).checkpointing
    assert of(LLAMA_8B, automatic, where=card(16)).checkpointing
    without = of(LLAMA_8B, "training.gradient_checkpointing=off")
    needed = without.high_bytes + without.paged_bytes
    assert not of(LLAMA_8B, automatic, where=replace(card(80), free_bytes=needed)).checkpointing
    assert of(LLAMA_8B, automatic, where=replace(card(80), free_bytes=needed - 1)).checkpointing


def test_the_verdict_follows_the_bounds() -> None:
    found = of("huggyllama/llama-7b", "adapter.rank=64")
    assert found.paged_bytes > GIB
    full = found.high_bytes + found.paged_bytes
    answers = {
        full: "fits",
        full - 1: "fits by paging",
        found.high_bytes: "fits by paging",
        found.high_bytes - 1: "tight",
        found.low_bytes: "tight",
        found.low_bytes - 1: "does not fit",
        0: "does not fit",
    }
    assert {free: verdict(found, free).answer for free in answers} == answers


def test_small_states_are_not_paged() -> None:
    """A matrix of rank 24 beside 4,096 inputs has fewer than 100,000 elements."""
    narrow = ("adapter.target_modules=q_proj,o_proj",)
    assert of(LLAMA_8B, *narrow, "adapter.rank=24").paged_bytes == 0
    assert of(LLAMA_8B, *narrow, "adapter.rank=25").paged_bytes == 32 * 4 * 25 * 4096 * 8


def test_a_length_beyond_the_context_is_allowed_with_a_warning_that_names_rope_scaling() -> None:
    assert not of("huggyllama/llama-7b").warnings
    [warning] = of("huggyllama/llama-7b", "training.max_length_tokens=4096").warnings
    assert "2,048" in warning and "rope scaling" in warning


def test_experts_are_counted_unquantized_and_said_so() -> None:
    found = of("Qwen/Qwen3-30B-A3B", "adapter.target_modules=q_proj,k_proj,v_proj,o_proj")
    experts = next(term for term in found.terms if term.key == "experts")
    assert experts.bytes / GIB == pytest.approx(54, rel=0.02)
    assert any("unquantized" in sentence for sentence in found.warnings)


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.2-1B", "openai-community/gpt2"])
def test_a_tied_head_that_is_trained_is_the_embedding(model: str) -> None:
    """As PEFT's ensure_weight_tying has it: 262,668,288 more parameters of Llama 3.2 1B, whichever name is given."""
    facts = facts_of(model)
    table = facts.vocab_size * facts.hidden_size
    embedding = next(group.name.rpartition(".")[2] for group in facts.modules if group.kind == "embedding")
    none, *saved = (
        of(model, f"adapter.modules_to_save={json.dumps(names)}").trainable_parameters
        for names in ([], ["lm_head"], [embedding], [embedding, "lm_head"])
    )
    assert saved == [none + table] * 3


def test_several_cards_share_what_the_strategy_shares() -> None:
    alone = of("huggyllama/llama-65b", where=card(80))
    ddp, fsdp, split = (
        of("huggyllama/llama-65b", where=replace(card(80), count=4, strategy=strategy))
        for strategy in ("ddp", "fsdp", "layer split")
    )
    assert ddp.need_bytes > alone.need_bytes > fsdp.need_bytes > alone.need_bytes / 4
    assert alone.need_bytes > split.need_bytes > alone.need_bytes / 4
    assert not any("replay" in reason for reason in fsdp.reasons)


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_a_card_of_a_layer_split_holds_its_layers_and_computes_each_in_full(checkpointing: str) -> None:
    """81 layers' worth of weights are split; what one layer needs to be computed again is not."""
    same = ("training.micro_batch_size=1", f"training.gradient_checkpointing={checkpointing}")
    alone, split = (
        of("huggyllama/llama-65b", *same, where=where)
        for where in (card(80), replace(card(80), count=4, strategy="layer split"))
    )
    whole, part = ({term.key: term.bytes for term in found.terms} for found in (alone, split))
    assert part["packed_weights"] == whole["packed_weights"] // 4
    assert part["tables"] == whole["tables"] // 2
    assert split.stored_bytes == alone.stored_bytes
    first, *middle, last = split.per_card
    assert len(middle) == 2 and max(middle) < min(first, last)
    quarter, full = part["activations"] / whole["activations"], checkpointing == "off"
    assert quarter == pytest.approx(0.25, abs=0.01) if full else 0.3 < quarter < 0.6


def test_a_tied_head_is_on_the_card_of_the_embedding() -> None:
    found = of("meta-llama/Llama-3.2-1B", where=replace(card(80), count=2, strategy="layer split"))
    assert found.per_card[0] - found.per_card[1] > facts_of("meta-llama/Llama-3.2-1B").vocab_size * 2048 * 2


def test_more_cards_than_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="16 layers"):
        of("meta-llama/Llama-3.2-1B", where=replace(card(24), count=17, strategy="layer split"))


def arithmetic(term: Term) -> float | None:
    """What a formula comes to; None for one in words."""
    text = term.formula.replace(" x ", " * ")
    for name in sorted(term.numbers, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?!\w)", str(term.numbers[name]), text)
    found: float | None = eval(text) if re.fullmatch(r"[\d.e\s*/+()min,-]+", text) else None
    return found


@pytest.mark.parametrize("model", [LLAMA_8B, "Qwen/Qwen3-0.6B", "gpt2", "Qwen/Qwen3-30B-A3B"])
@pytest.mark.parametrize(
    "settings",
    [(), ("training.recipe=original", "adapter.dropout=0.1"), ("training.gradient_checkpointing=off",),
     ("training.optimizer=paged_adamw_8bit", "quantization.double_quantization=false"),
     ("quantization.kind=8bit", "training.optimizer=adamw_torch_fused", "adapter.rank=64"),
     ("quantization.kind=none", "adapter.kind=full", "training.gradient_checkpointing=off"),
     ("quantization.kind=none", "adapter.kind=full", "training.gradient_accumulation_steps=1"),
     ("training.optimizer=paged_adamw_8bit", "quantization.kind=none", "adapter.kind=full"),
     ("adapter.modules_to_save=lm_head", "adapter.dora=true")],
)  # fmt: skip
def test_every_formula_comes_to_what_it_explains(model: str, settings: tuple[str, ...]) -> None:
    """But for what the allocator rounds up: 512 bytes of each tensor."""
    config = resolve(overrides=[f"model.id={model}", *BASE, *settings])
    found = estimate(config, facts_of(model), card(192))
    terms = explained(found, config, facts_of(model))
    assert [(term.key, term.bytes) for term in terms] == [(term.key, term.bytes) for term in found.terms]
    values = {term.key: arithmetic(term) for term in terms}
    assert {key for key, value in values.items() if value is None} <= {"context", "dequantization", "optimizer_step"}
    for term in terms:
        value = values[term.key]
        if value is not None:
            assert value == pytest.approx(term.bytes, rel=0.003, abs=1000 * 512), (term.key, term.formula)


@pytest.mark.parametrize("model", ["EleutherAI/gpt-neox-20b", "Qwen/Qwen3-30B-A3B"])
def test_the_formulas_of_a_card_that_scores_no_words_come_to_what_they_explain(model: str) -> None:
    settings = ("quantization.kind=none", "adapter.kind=full", "training.micro_batch_size=13",
                "training.max_length_tokens=333", "training.gradient_checkpointing=on",
                "training.optimizer=adamw_bnb_8bit")  # fmt: skip
    found = of(model, *settings, where=replace(card(192), count=2, strategy="layer split"))
    for term in found.terms:
        value = arithmetic(term)
        if value is not None:
            assert value == pytest.approx(term.bytes, rel=0.003, abs=1000 * 512), (term.key, term.formula)


PAPER = {
    "7b": (5046, 288, 1152, 4475, 305),
    "13b": (8476, 450, 1800, 8058, 477),
    "30b": (19302, 877.5, 3510, 18849, 930),
    "65b": (37074, 1440, 5760, 36745, 1525),
}
"""LLaMA sizes: MB of 4-bit model, adapters and optimizer in the paper's Figure 6; then MiB of the weights counted
without double quantization and with float32 embeddings, and of adapters on LLaMA's real shapes."""


@pytest.mark.parametrize("size", PAPER)
def test_the_papers_figure_component_by_component(size: str) -> None:
    """Batch 1, 512 tokens, checkpointing, rank 64. The paper's model bars are 0.3 to 0.6 GiB above weights without
    double quantization and with float32 embeddings; its adapter bars count 18 x hidden x rank x layers weights, those
    of a plain MLP four times as wide, where LLaMA's gated one has more."""
    model_mb, adapter_mb, optimizer_mb, counted_mib, real_adapter_mib = PAPER[size]
    where = card(80)
    found = of(
        f"huggyllama/llama-{size}", "training.micro_batch_size=1", "training.max_length_tokens=512", "adapter.rank=64",
        "quantization.double_quantization=false", "training.recipe=original", where=where,
    )  # fmt: skip
    terms = {term.key: term.bytes for term in found.terms}
    facts = facts_of(f"huggyllama/llama-{size}")
    tables = 2 * facts.vocab_size * facts.hidden_size * 4
    weights = terms["packed_weights"] + terms["quantization_constants"] + tables + terms["other_weights"]
    assert weights / MIB == pytest.approx(counted_mib, rel=0.002)
    assert 250 < model_mb - weights / MIB < 620
    assert adapter_mb == 18 * facts.hidden_size * 64 * facts.layers * 2 / MIB
    assert terms["adapter"] / MIB == pytest.approx(real_adapter_mib, abs=0.6)
    assert optimizer_mb == 4 * adapter_mb
    assert terms["optimizer_paged"] == 4 * terms["adapter"] == 4 * terms["gradients"]


@pytest.mark.parametrize(("size", "gb"), [("7b", 8), ("13b", 12), ("30b", 24), ("65b", 48)])
@pytest.mark.parametrize("recipe", ["lean", "original"])
def test_the_papers_models_train_on_the_papers_cards(size: str, gb: int, recipe: str) -> None:
    found = of(
        f"huggyllama/llama-{size}", "training.micro_batch_size=1", "training.max_length_tokens=512", "adapter.rank=64",
        f"training.recipe={recipe}", where=card(gb),
    )  # fmt: skip
    assert verdict(found, card(gb).free_bytes).sure
    assert verdict(found, card(gb * 0.5).free_bytes).answer == "does not fit"


@pytest.mark.parametrize(
    ("size", "gb", "answer", "spare_gib"),
    [("7b", 8, "fits", 2.0), ("13b", 12, "fits", 2.2), ("30b", 24, "fits by paging", 2.4), ("65b", 48, "fits", 7.7)],
)
def test_the_margin_on_the_papers_cards(size: str, gb: int, answer: str, spare_gib: float) -> None:
    """Free memory beyond the highest need: fragmentation replayed, with 3 % of doubt, and 150 MiB about the context."""
    model, where = f"huggyllama/llama-{size}", card(gb)
    config = resolve(overrides=[f"model.id={model}", *BASE, "training.recipe=original", "training.micro_batch_size=1",
                                "training.max_length_tokens=512", "adapter.rank=64"])  # fmt: skip
    found = estimate(config, facts_of(model), where, replay=True)
    assert verdict(found, where.free_bytes).answer == answer
    assert (where.free_bytes - found.high_bytes) / GIB == pytest.approx(spare_gib, abs=0.3)


def saved(model: str, *settings: str, where: Device) -> dict[str, Saving]:
    config = resolve(overrides=[f"model.id={model}", *settings])
    return {each.name: each for each in savings(config, facts_of(model), where)}


def test_savings_are_the_differences_between_estimates() -> None:
    found = saved(LLAMA_8B, *BASE, where=card(80))
    with_it, without = of(LLAMA_8B), of(LLAMA_8B, "quantization.double_quantization=false")
    double = found["double quantization"]
    assert double.in_use and double.saves_bytes == without.full_bytes - with_it.full_bytes > 200 * MIB
    assert found["paging the optimizer"].saves_bytes == with_it.paged_bytes
    assert found["gradient checkpointing"].saves_bytes > 15 * GIB


def test_four_bit_weights_save_the_same_whatever_checkpointing_comes_to() -> None:
    """16-bit weights would not fit 24 GB without checkpointing, which "auto" would switch on."""
    automatic = saved(LLAMA_8B, where=card(24))["4-bit weights"]
    settled = saved(LLAMA_8B, "training.gradient_checkpointing=off", where=card(24))["4-bit weights"]
    linear = facts_of(LLAMA_8B).parameters_by_class["linear"]
    assert automatic == settled and automatic.in_use
    assert automatic.saves_bytes / (linear * (2 - 4.127 / 8)) == pytest.approx(1, abs=0.02)


def test_four_bit_weights_of_a_small_model_save_what_they_store_less() -> None:
    small = "HuggingFaceTB/SmolLM2-135M-Instruct"
    found = saved(small, "training.micro_batch_size=4", where=card(8))["4-bit weights"]
    assert found.saves_bytes == pytest.approx(facts_of(small).parameters_by_class["linear"] * 1.48, rel=0.03)


def test_paging_that_is_not_in_use_is_told_what_it_would_save() -> None:
    found = saved(LLAMA_8B, *BASE, "adapter.rank=64", "training.optimizer=adamw_bnb_8bit", where=card(80))
    paging = found["paging the optimizer"]
    assert not paging.in_use
    assert paging.saves_bytes == pytest.approx(2 * of(LLAMA_8B, "adapter.rank=64").trainable_parameters, rel=0.1)


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen3-0.6b", "mistral-7b", "guanaco-33b", "qwen3-14b"])
def test_what_a_preset_says_it_needs_is_what_is_estimated(name: str) -> None:
    preset = find(name)
    facts, told = facts_of(preset.config.model.id), " ".join(preset.description)
    said = re.search(r"Needs about ([\d.]+) GiB", told)
    found = estimate(preset.config, facts, card(80), replay=True)
    assert said is not None and float(said[1]) == pytest.approx(found.full_bytes / GIB, rel=0.06)
    for named in re.findall(r"for cards of (\d+)", preset.title):
        assert verdict(found, card(int(named)).free_bytes).sure


GPU = Gpu(0, "Card", "GPU-1", 24 * GIB, 20 * GIB, (8, 6), None, None, None)
BIG = replace(GPU, index=1, name="Bigger", free_bytes=22 * GIB)
MACHINE = Machine((GPU, BIG), "550", 8, 0.0, 64 * GIB, 32 * GIB)
BARE = replace(MACHINE, gpus=(), driver=None)


def test_devices_by_their_names() -> None:
    assert device.parse("24GB", BARE).total_bytes == 24 * GIB
    assert device.parse("2x24 gb", BARE).count == 2
    assert device.parse("0", MACHINE).name == "Card"
    assert device.parse("auto", MACHINE).name == "Bigger"
    assert device.parse("cpu", MACHINE).kind == device.parse("auto", BARE).kind == "cpu"
    assert device.parse("auto", BARE).free_bytes == 32 * GIB


def test_a_measured_context_is_used_for_cards_of_that_name() -> None:
    assert not device.gpu(GPU).context_measured
    context.remember("Card", 321 * MIB)
    found, other = device.gpu(GPU), device.gpu(BIG)
    assert (found.context_bytes, found.context_measured) == (321 * MIB, True)
    assert (other.context_bytes, other.context_measured) == (device.CONTEXT_BYTES, False)
    known, assumed = of(LLAMA_8B, where=found), of(LLAMA_8B, where=other)
    assert known.high_bytes - known.low_bytes < assumed.high_bytes - assumed.low_bytes
    assert not any("context is assumed" in reason for reason in known.reasons)


@pytest.mark.parametrize(
    ("text", "machine", "error", "words"),
    [("5", MACHINE, EnvironmentProblem, "no such GPU"), ("0", BARE, EnvironmentProblem, "NVML"),
     ("0GB", BARE, UsageError, "memory"), ("-4GB", BARE, UsageError, "not a card"),
     ("big", BARE, UsageError, "not a card"),
     ("0x24GB", BARE, UsageError, "memory")],
)  # fmt: skip
def test_devices_that_do_not_exist(text: str, machine: Machine, error: type[QloraError], words: str) -> None:
    with pytest.raises(error) as raised:
        device.parse(text, machine)
    assert words in raised.value.message and raised.value.hint


def test_the_estimator_needs_no_torch() -> None:
    code = "import qlora_tui.memory.advisor, qlora_tui.memory.history, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("modules", "checkpointing", "dry_run_bytes"),
    [("q_proj,v_proj", "off", 16_799_463_424), ("q_proj,v_proj", "on", 3_756_735_488),
     ("gate_proj,up_proj", "on", 5_458_041_856), ('["o_proj"]', "off", 21_185_303_552)],
)  # fmt: skip
def test_dora_is_estimated_for_its_modules(modules: str, checkpointing: str, dry_run_bytes: int) -> None:
    """Against full dry runs of Llama-3.2-3B, 4 x 1,024 tokens."""
    settings = ("training.micro_batch_size=4", "training.max_length_tokens=1024", f"adapter.target_modules={modules}",
                f"training.gradient_checkpointing={checkpointing}", "adapter.dora=true")  # fmt: skip
    found = of("meta-llama/Llama-3.2-3B", *settings)
    assert found.peak_bytes == pytest.approx(dry_run_bytes, rel=0.08)
    context = found.device.context_bytes
    assert found.low_bytes - context <= dry_run_bytes <= found.high_bytes - context
    assert of("meta-llama/Llama-3.2-3B", *settings, "adapter.target_modules=all-linear").peak_bytes > found.peak_bytes
