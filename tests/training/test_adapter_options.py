"""Which modules get matrices, of which rank, and how they start: PEFT does what is configured, and it is priced."""

from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import Linear4bit
from safetensors.torch import load_file
from test_finished_runs import trained_here
from training_material import SMALL

from qlora_tui.config.overrides import resolve
from qlora_tui.engine import adapters, loading
from qlora_tui.engine.resolve import resolve_to_train
from qlora_tui.errors import ConfigError
from qlora_tui.memory import trainable
from qlora_tui.models import describe
from qlora_tui.starter import MODEL_DIR


def attached(*overrides: str) -> Any:
    """The starter model with its adapter on the CPU."""
    config = resolve(overrides=(*SMALL, *overrides))
    settings = resolve_to_train(config)
    return adapters.attach(loading.load_model(config, settings, loading.load_tokenizer(config.model)), config, settings)


def layers_of(model: Any) -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if isinstance(layer, Linear4bit)
    }


@pytest.mark.parametrize(
    "settings",
    [
        ("adapter.layers_to_transform=[1]",),
        ("adapter.exclude_modules=[\"down_proj\", \"q_proj\"]",),
        ("adapter.exclude_modules=.*mlp.*", "adapter.layers_to_transform=[0, 2]"),
        ("adapter.rank_pattern=q_proj=4,v_proj=32", "adapter.alpha_pattern=[\"q_proj=64\"]"),
        ("adapter.target_modules=[\"q_proj\", \"o_proj\"]", "adapter.rank_pattern=[\"layers.1.*=2\"]"),
        ("adapter.target_modules=.*(up|down)_proj", "adapter.exclude_modules=[\"layers.0.mlp.up_proj\"]"),
    ],
)  # fmt: skip
def test_estimated_parameters_are_those_that_peft_trains(settings: tuple[str, ...]) -> None:
    model, config = attached(*settings), resolve(overrides=(*SMALL, *settings))
    _, trained, _, _ = adapters.parameter_counts(model)
    assert trainable.parameters(trainable.tensors(describe(config.model.id), config.adapter, 4)) == trained
    assert 0 < trained < adapters.parameter_counts(attached())[1] * 1.5


def test_patterns_name_modules() -> None:
    found = layers_of(attached("adapter.rank_pattern=q_proj=4,v_proj=32", "adapter.alpha_pattern=q_proj=64,k_proj=2"))
    q_proj, k_proj = found["model.layers.0.self_attn.q_proj"], found["model.layers.0.self_attn.k_proj"]
    assert (q_proj.r["default"], q_proj.scaling["default"]) == (4, 16)
    assert (k_proj.r["default"], k_proj.scaling["default"]) == (16, 2 / 16)
    assert found["model.layers.1.self_attn.v_proj"].r["default"] == 32


def test_layers_and_exclusions_choose_modules() -> None:
    names = set(layers_of(attached("adapter.layers_to_transform=[1]", 'adapter.exclude_modules=["mlp.up_proj"]')))
    assert {name.split(".")[2] for name in names} == {"1"}
    assert {name.rpartition(".")[2] for name in names} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("adapter.rank_pattern=[\"q_proj\"]", "rank_pattern"),
        ("adapter.rank_pattern=[\"q_proj=0\"]", "rank_pattern"),
        ("adapter.layers_to_transform=[-1]", "layers_to_transform"),
    ],
)  # fmt: skip
def test_wrong_patterns_are_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(overrides=[setting])
    with pytest.raises(ConfigError, match="excludes a regular expression"):
        resolve(overrides=["adapter.target_modules=.*q_proj", "adapter.layers_to_transform=[1]"])


def test_loftq_cancels_quantization_error_on_a_cpu() -> None:
    """Also where alpha is not the rank, so that the update is scaled."""
    model = attached("adapter.init=loftq", "adapter.alpha=32", "adapter.dropout=0")
    weights = load_file(MODEL_DIR / "model.safetensors")
    for name, layer in layers_of(model).items():
        stored = layer.get_base_layer().weight
        error = weights[f"{name}.weight"].float() - dequantize_4bit(stored.data, stored.quant_state).float()
        rest = error - layer.get_delta_weight("default").float()
        assert rest.norm() < 0.95 * error.norm(), name
        best = torch.linalg.svdvals(error)[layer.r["default"] :].norm()
        assert float(rest.norm()) == pytest.approx(float(best), rel=1e-3), name


def test_a_loftq_run_trains_on_a_cpu() -> None:
    _, state = trained_here(
        "one", "adapter.init=loftq", "training.max_steps=2", "adapter.rank_pattern=q_proj=4,v_proj=8"
    )
    assert state.phase == "finished", state.failed


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("adapter.target_modules=[\"q_proj\", \"v_prj\"]", "v_proj"),
        ("adapter.exclude_modules=[\"mlp\"]", "down_proj"),
        ("adapter.modules_to_save=[\"embed_token\"]", "embed_tokens"),
        ("adapter.rank_pattern=[\"qproj=4\"]", "q_proj"),
        ("adapter.layers_to_transform=[99]", "from 0 to"),
    ],
)  # fmt: skip
def test_name_that_matches_no_module_of_the_loaded_model_is_refused(setting: str, nearest: str) -> None:
    """The check on the model itself serves architectures of which nothing else is known."""
    with pytest.raises(ConfigError) as caught:
        attached(setting)
    assert setting.partition("=")[0] in caught.value.message and nearest in caught.value.hint
