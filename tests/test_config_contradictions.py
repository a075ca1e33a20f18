"""Settings that exclude each other and settings without effect: both keys are named."""

import pytest

from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ConfigError

FULL = ["adapter.kind=full", "quantization.kind=none"]
EVALUATED = ["data.eval_rows=10"]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (["adapter.kind=full"], ("adapter.kind", "quantization.kind")),
        ([*FULL, "adapter.dora=true"], ("adapter.dora", "adapter.kind")),
        ([*FULL, "adapter.rank_stabilized=true"], ("adapter.rank_stabilized", "adapter.kind")),
        ([*FULL, "adapter.init=pissa"], ("adapter.init", "adapter.kind")),
        ([*FULL, "adapter.init=loftq"], ("adapter.init", "adapter.kind")),
        ([*FULL, "adapter.lora_plus_ratio=16"], ("adapter.lora_plus_ratio", "adapter.kind")),
        ([*FULL, "model.dtype=float16"], ("model.dtype", "adapter.kind")),
        (["adapter.init=pissa"], ("adapter.init", "quantization.kind")),
        (["adapter.init=pissa", "quantization.kind=8bit"], ("adapter.init", "quantization.kind")),
        (["adapter.init=loftq", "quantization.kind=none"], ("adapter.init", "quantization.kind")),
        (["adapter.init=loftq", "quantization.kind=8bit"], ("adapter.init", "quantization.kind")),
        (
            ["adapter.layers_to_transform=[1]", "adapter.target_modules=.*q_proj"],
            ("adapter.layers_to_transform", "adapter.target_modules"),
        ),
        (["model.dtype=float16", "model.device=cpu"], ("model.dtype", "model.device")),
        (["quantization.compute_dtype=float16", "model.device=cpu"], ("quantization.compute_dtype", "model.device")),
        (["model.attention=flash_attention_2", "model.device=cpu"], ("model.attention", "model.device")),
        (["training.best_checkpoint=true"], ("training.best_checkpoint", "data.eval_rows")),
        (["training.early_stopping_evals=3"], ("training.early_stopping_evals", "data.eval_rows")),
        ([*EVALUATED, "training.best_checkpoint=true"], ("training.best_checkpoint", "training.eval_every_steps")),
        (
            [*EVALUATED, "training.early_stopping_evals=3"],
            ("training.early_stopping_evals", "training.eval_every_steps"),
        ),
        (
            [*EVALUATED, "training.best_checkpoint=true", "training.eval_every_steps=100"],
            ("training.save_every_steps", "training.eval_every_steps"),
        ),
        (["data.streaming=true"], ("data.streaming", "training.max_steps")),
        (
            ["data.streaming=true", "training.max_steps=9", "training.group_by_length=true"],
            ("data.streaming", "training.group_by_length"),
        ),
        (["training.packing=true", "training.group_by_length=true"], ("training.packing", "training.group_by_length")),
    ],
)
def test_refused(settings: list[str], keys: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=settings)
    for key in keys:
        assert f"{key} from " in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        FULL,
        ["adapter.init=pissa", "quantization.kind=none"],
        ["adapter.init=loftq"],
        ["adapter.dora=true", "adapter.rank_stabilized=true", "adapter.lora_plus_ratio=16"],
        ["data.eval_source=held-out.jsonl", "training.eval_every_steps=50", "training.best_checkpoint=true"],
        ["data.eval_split=test", "training.eval_every_steps=50", "training.early_stopping_evals=2"],
        ["data.streaming=true", "training.max_steps=10", "training.packing=true"],
    ],
)
def test_allowed_and_without_a_warning(settings: list[str]) -> None:
    assert without_effect(resolve(overrides=settings)) == []


@pytest.mark.parametrize(
    ("settings", "key", "because_of"),
    [
        (["training.warmup_ratio=0.1"], "training.warmup_ratio", "training.schedule"),
        (["training.warmup_steps=5"], "training.warmup_steps", "training.schedule"),
        (
            ["training.schedule=linear", "training.warmup_steps=5", "training.warmup_ratio=0.1"],
            "training.warmup_ratio",
            "training.warmup_steps",
        ),
        (
            ["quantization.kind=none", "quantization.double_quantization=true"],
            "quantization.double_quantization",
            "quantization.kind",
        ),
        (
            ["quantization.kind=8bit", "quantization.quant_storage=bfloat16"],
            "quantization.quant_storage",
            "quantization.kind",
        ),
        (
            ["quantization.kind=8bit", "quantization.compute_dtype=bfloat16"],
            "quantization.compute_dtype",
            "quantization.kind",
        ),
        ([*FULL, "adapter.alpha=32"], "adapter.alpha", "adapter.kind"),
        ([*FULL, "adapter.rank=16"], "adapter.rank", "adapter.kind"),
        ([*FULL, "adapter.modules_to_save=lm_head"], "adapter.modules_to_save", "adapter.kind"),
        (["training.optimizer=sgd", "training.adam_beta2=0.99"], "training.adam_beta2", "training.optimizer"),
        (["training.optimizer=paged_adamw_8bit", "model.device=cpu"], "training.optimizer", "model.device"),
        (["training.max_steps=5", "training.epochs=1"], "training.epochs", "training.max_steps"),
        (["training.eval_every_steps=5"], "training.eval_every_steps", "data.eval_rows"),
        (["data.max_eval_rows=5"], "data.max_eval_rows", "data.eval_rows"),
        (["data.eval_rows=5", "data.eval_split=test"], "data.eval_rows", "data.eval_split"),
        (["data.eval_rows=5", "data.eval_source=x.jsonl"], "data.eval_rows", "data.eval_source"),
        (["training.sample_every_steps=5"], "training.sample_every_steps", "training.sample_prompts"),
        (["data.source_max_tokens=1024"], "data.source_max_tokens", "training.max_length_tokens"),
        (["data.length_policy=drop", "data.truncation_side=left"], "data.truncation_side", "data.length_policy"),
    ],
)
def test_warned_about(settings: list[str], key: str, because_of: str) -> None:
    warnings = without_effect(resolve(overrides=settings))
    assert [warning for warning in warnings if warning.startswith(f"{key} = ") and f"with {because_of} = " in warning]
    assert len(warnings) == 1


def test_a_default_that_nobody_chose_is_no_reason_for_a_warning() -> None:
    assert without_effect(resolve(overrides=["quantization.kind=none", "training.max_steps=5"])) == []
