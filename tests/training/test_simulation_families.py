"""The dry run of every model in the catalogue, a few layers deep, and of packed rows."""

from dataclasses import replace
from typing import Any

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.models import catalogue

pytestmark = pytest.mark.long

_LAYERS = ("num_hidden_layers", "n_layer")
_REFUSED = ("t5",)
"""Not causal models."""


def shallow(keys: dict[str, Any]) -> dict[str, Any]:
    depth = 2 + keys.get("first_k_dense_replace", 0)
    found = keys | {name: depth for name in _LAYERS if name in keys}
    if found.get("layer_types"):
        found["layer_types"] = found["layer_types"][:depth]
    if "text_config" in found:
        found["text_config"] = shallow(found["text_config"])
    return found


def models() -> dict[str, dict[str, Any]]:
    """The config of each model, under the first of its names."""
    found: dict[str, dict[str, Any]] = {}
    for model in catalogue.ids():
        known = catalogue.find(model)
        assert known is not None
        keys = shallow(dict(known.config))
        if known.config["model_type"] not in _REFUSED and keys not in found.values():
            found[model] = keys
    return found


def families() -> dict[str, dict[str, Any]]:
    """The config of the first model of each family."""
    found: dict[str, dict[str, Any]] = {}
    for keys in models().values():
        found.setdefault(str(keys["model_type"]), keys)
    return found


def step(keys: dict[str, Any], workload: Any, *, rows: int = 2, recipe: str = "lean") -> Any:
    from qlora_tui.engine.simulation.hf_config import from_keys
    from qlora_tui.engine.simulation.simulate import simulate

    training = {"micro_batch_size": rows, "gradient_accumulation_steps": 1, "gradient_checkpointing": "off"}
    config = RunConfig.model_validate(
        {"model": {"id": "shallow", "attention": "sdpa"}, "training": {**training, "recipe": recipe}}
    )
    return simulate(config, from_keys(keys), workload)


MODELS = models()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_catalogue_can_be_simulated(model: str) -> None:
    from qlora_tui.engine.simulation.simulate import Workload

    found = step(MODELS[model], Workload(tokens=128, padded=True))
    assert found.trainable_parameters > 0
    assert found.peak_bytes > found.stored_bytes > 0
    assert found.by_category["activations"] > 0


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_heads_whose_values_are_smaller_can_be_simulated_without_a_mask(family: str) -> None:
    from qlora_tui.engine.simulation.simulate import Workload

    keys = families()[family]
    assert keys["qk_nope_head_dim"] + keys["qk_rope_head_dim"] > keys["v_head_dim"]
    short, long = (step(keys, Workload(tokens=tokens), rows=1) for tokens in (64, 512))
    assert long.peak_bytes > short.peak_bytes > 0


def test_heads_of_an_odd_size_are_padded_for_the_flash_kernel() -> None:
    from qlora_tui.engine.simulation.simulate import Workload

    odd, even = (step(families()["llama"] | {"head_dim": size}, Workload(tokens=512), rows=1) for size in (100, 104))
    assert odd.by_category["activations"] > even.by_category["activations"]


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss", "qwen2_moe"])
def test_experts_that_were_made_float32_are_multiplied_as_a_gpu_does(family: str) -> None:
    from qlora_tui.engine.simulation.simulate import Workload

    keys = families()[family]
    lean, original = (step(keys, Workload(tokens=128), rows=1, recipe=recipe) for recipe in ("lean", "original"))
    assert original.stored_bytes > 1.5 * lean.stored_bytes
    assert original.peak_bytes > lean.peak_bytes


def test_packed_rows_are_one_sequence_with_a_mask() -> None:
    from qlora_tui.engine.simulation.simulate import Workload

    keys, tokens = families()["llama"], 512
    packed = step(keys, Workload(tokens=tokens, packed=True))
    whole = step(keys, Workload(tokens=2 * tokens), rows=1)
    padded = step(keys, replace(Workload(tokens=tokens), padded=True))
    masks = 2 * 2 * (2 * tokens) ** 2
    assert packed.peak_bytes >= whole.peak_bytes + masks
    assert packed.peak_bytes > padded.peak_bytes
