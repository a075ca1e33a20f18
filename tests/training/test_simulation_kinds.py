"""The dry run of what is not plain LoRA: full finetuning, DoRA, and modules that are trained in full."""

from dataclasses import replace
from typing import Any

import pytest

from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.memory.device import card
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.models import catalogue
from qlora_tui.models.assemble import assemble

TINY: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2,
}  # fmt: skip
EMBEDDING = TINY["vocab_size"] * TINY["hidden_size"]


def simulated(*, tied: bool = False, quantization: str = "nf4", optimizer: str = "adamw_torch", **adapter: Any) -> Any:
    from qlora_tui.engine.simulation.hf_config import from_keys
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    config = RunConfig.model_validate(
        {
            "model": {"id": "tiny", "attention": "sdpa"},
            "quantization": {"kind": quantization},
            "adapter": {"rank": 8, **adapter},
            "training": {
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": "on",
                "optimizer": optimizer,
            },
        }
    )
    return simulate(config, from_keys(TINY | {"tie_word_embeddings": tied}), Workload(tokens=64))


def test_full_finetuning_trains_every_weight() -> None:
    found = simulated(kind="full", quantization="none")
    assert (
        found.trainable_parameters == 2 * EMBEDDING + 2 * (2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 704 + 2 * 256) + 256
    )
    assert found.by_category["weights"] >= 4 * found.trainable_parameters
    assert found.by_category["gradients"] >= 4 * found.trainable_parameters
    assert "adapter" not in found.by_category


def test_dora_runs_on_four_bits() -> None:
    magnitudes = 2 * (256 + 64 + 64 + 256 + 704 + 704 + 256)
    assert simulated(dora=True).trainable_parameters == simulated().trainable_parameters + magnitudes


@pytest.mark.parametrize(("tied", "name"), [(False, "lm_head"), (True, "lm_head"), (True, "embed_tokens")])
def test_a_module_that_is_saved_is_trained_in_full(tied: bool, name: str) -> None:
    trained = simulated(tied=tied, modules_to_save=[name]).trainable_parameters
    assert trained == simulated(tied=tied).trainable_parameters + EMBEDDING


def test_eight_bit_optimizers_keep_32_bits_for_embeddings() -> None:
    """Transformers overrides them for each nn.Embedding, by 32 bits."""
    plain, saved = (
        simulated(optimizer="adamw_bnb_8bit", modules_to_save=names)
        for names in (["lm_head"], ["lm_head", "embed_tokens"])
    )
    states = 2 * 4 * EMBEDDING
    grown = saved.by_category["optimizer"] - plain.by_category["optimizer"]
    assert grown == states


def test_a_copied_module_is_counted_once() -> None:
    """PEFT copies what it saves; seen as another tensor each time it would be counted over and over."""
    plain, saved = (simulated(optimizer="sgd", modules_to_save=names) for names in ([], ["lm_head"]))
    assert saved.stored_bytes - plain.stored_bytes == 2 * EMBEDDING
    assert all(birth.operation != "aten::slice" for birth in saved.ledger.births)


def test_gradients_of_a_tied_embedding_are_added_in_place() -> None:
    """At the end of the backward pass there is that of the head and that of the embedding, but no third."""
    found = simulated(kind="full", quantization="none", optimizer="sgd", tied=True)
    assert found.phase == "backward.0"
    beyond = found.peak_bytes - found.stored_bytes - 4 * (found.trainable_parameters + EMBEDDING)
    assert 0 < beyond < 2 * EMBEDDING


FULL = ("adapter.kind=full", "quantization.kind=none")
SHAPES = {"Qwen/Qwen3-0.6B": 512, "meta-llama/Llama-3.2-1B": 2048}
"""Tokens of a row."""


def both(model: str, tied: bool, layers: int | None, *settings: str) -> tuple[Estimate, int, int]:
    """The estimate, then bytes allocated and bytes needed in a dry run, with the context."""
    from qlora_tui.engine.simulation.hf_config import from_keys
    from qlora_tui.engine.simulation.simulate import Workload, simulate
    from qlora_tui.memory.allocator import smallest_capacity

    known, tokens = catalogue.find(model), SHAPES[model]
    assert known is not None
    keys = {**known.config, "tie_word_embeddings": tied, "num_hidden_layers": layers or 2}
    if layers is None:
        # Small enough for seconds, but with tables that weigh as those of a whole model.
        keys = {**keys, "hidden_size": 256, "intermediate_size": 768, "vocab_size": 40000}
    if keys.get("layer_types"):
        keys["layer_types"] = keys["layer_types"][: keys["num_hidden_layers"]]
    one = ("training.micro_batch_size=1", f"training.max_length_tokens={tokens}", "model.attention=sdpa")
    config = resolve(overrides=[f"model.id={model}", *one, *settings])
    device = replace(card(80), context_measured=True)
    found = estimate(config, assemble(replace(known, config=keys)), device)
    dry = simulate(config, from_keys(keys), Workload(tokens=tokens))
    assert found.trainable_parameters == dry.trainable_parameters
    return found, max(dry.phase_peaks.values()), smallest_capacity(dry.ledger.trace()) + device.context_bytes


def agree(found: Estimate, allocated: int, needed: int, share: float) -> None:
    assert found.peak_bytes == pytest.approx(allocated, rel=share)
    assert found.low_bytes <= needed <= found.high_bytes


@pytest.mark.parametrize(
    ("tied", "settings"),
    [(True, FULL), (False, (*FULL, "training.gradient_accumulation_steps=1", "training.gradient_checkpointing=off")),
     (True, ("adapter.modules_to_save=lm_head",)), (False, ("adapter.dora=true",))],
)  # fmt: skip
def test_the_estimate_agrees_with_a_dry_run(tied: bool, settings: tuple[str, ...]) -> None:
    agree(*both("Qwen/Qwen3-0.6B", tied, None, "training.gradient_checkpointing=on", *settings), share=0.06)


@pytest.mark.long
@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
@pytest.mark.parametrize(
    "settings",
    [(*FULL, "training.optimizer=adamw_torch_fused"), (*FULL, "training.optimizer=paged_adamw_8bit"),
     (*FULL, "training.gradient_accumulation_steps=1", "model.dtype=bfloat16"),
     ("adapter.dora=true",), ("adapter.dora=true", "adapter.dropout=0.1"),
     ("adapter.modules_to_save=lm_head",), ("adapter.modules_to_save=embed_tokens",)],
)  # fmt: skip
def test_the_estimate_agrees_with_a_dry_run_of_a_real_shape(
    model: str, tied: bool, checkpointing: str, settings: tuple[str, ...]
) -> None:
    agree(*both(model, tied, 6, f"training.gradient_checkpointing={checkpointing}", *settings), share=0.06)


@pytest.mark.parametrize("model", ["openai-community/gpt2", "facebook/opt-1.3b", "stabilityai/stablelm-2-1_6b"])
@pytest.mark.parametrize("changed", [{"rows": 2, "checkpointing": "off", "dtype": "auto"}, {"dtype": "bfloat16"}])
def test_full_finetuning_is_estimated_from_a_recording(model: str, changed: dict[str, Any]) -> None:
    from qlora_tui.engine.simulation import grid
    from qlora_tui.engine.simulation.simulate import simulate

    case = next(case for case in grid.cases() if case["model"] == model and case.get("adapter") == "full")
    case |= {"depth": 8, "tokens": 512, **changed}
    config, (hf_config, facts) = grid.run_config(case), grid.model(case)
    found = estimate(config, facts, card(80), longest_tokens=case["tokens"])
    assert found.source != "closed form"
    dry = simulate(config, hf_config, grid.workload(case))
    assert found.peak_bytes == pytest.approx(max(dry.phase_peaks.values()), rel=0.02)
