"""Names of modules in an adapter's settings: one that matches nothing in the model is refused with the nearest."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError, ExitCode
from qlora_tui.memory.module_names import of_facts, refuse_misnamed
from qlora_tui.memory.targets import targets
from qlora_tui.models import catalogue, describe
from qlora_tui.models.assemble import assemble

__all__ = ["command"]


def refusal(model: str = "Qwen/Qwen2.5-7B", **settings: Any) -> ConfigError:
    modules = of_facts(describe(model, network=False))
    assert modules is not None
    with pytest.raises(ConfigError) as caught:
        refuse_misnamed(config_of(**settings), modules)
    return caught.value


def config_of(kind_of_weights: str = "none", **settings: Any) -> RunConfig:
    weights = QuantizationSpec.model_validate({"kind": kind_of_weights})
    return RunConfig.model_construct(adapter=AdapterSpec(**settings), quantization=weights)


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"target_modules": ["q_proj", "v_prj"]}, "adapter.target_modules: 'v_prj' matches no layer", "is v_proj"),
        ({"target_modules": ["query_key_value"]}, "'query_key_value' matches no layer", "q_proj"),
        ({"target_modules": ["mlp"]}, "'mlp' is a block", "down_proj, gate_proj, up_proj"),
        ({"target_modules": ["input_layernorm"]}, "takes no matrices", "q_proj"),
        ({"target_modules": ["layers.99.self_attn.q_proj"]}, "matches no layer", "layers.9.self_attn.q_proj"),
        ({"target_modules": "q_proj"}, "'q_proj' matches no layer", 'adapter.target_modules = ["q_proj"]'),
        ({"target_modules": ".*attention.*q_prj"}, "matches no layer", "is q_proj"),
        ({"exclude_modules": ["up_prj"]}, "adapter.exclude_modules: 'up_prj'", "is up_proj"),
        ({"exclude_modules": ["mlp"]}, "adapter.exclude_modules: 'mlp' is a block", '".*mlp.*"'),
        ({"target_modules": ["q_proj"], "exclude_modules": ["up_proj"]}, "not among the targeted", "q_proj"),
        ({"exclude_modules": ".*norm"}, "adapter.exclude_modules: '.*norm' matches no layer", "regular expression"),
        ({"modules_to_save": ["embed_token"]}, "adapter.modules_to_save: 'embed_token'", "is embed_tokens"),
        ({"modules_to_save": ["wte"]}, "matches no module", "The nearest is"),
        ({"rank_pattern": ["q_prj=8"]}, "adapter.rank_pattern: 'q_prj' matches no module", "is q_proj"),
        ({"alpha_pattern": ["layers.77.*=8"]}, "adapter.alpha_pattern", "The nearest is model.layers"),
        ({"target_modules": ["q_proj"], "rank_pattern": ["v_proj=8"]}, "gets matrices", "is q_proj"),
        ({"layers_to_transform": [1, 28]}, "adapter.layers_to_transform: 28 is no layer", "0 to 27"),
    ],
)
def test_name_that_matches_nothing_is_refused(settings: dict[str, Any], message: str, hint: str) -> None:
    error = refusal(**settings)
    assert message in error.message and "Qwen/Qwen2.5-7B" in error.message
    assert hint in error.hint, error.hint
    assert error.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "self_attn.v_proj", "model.layers.3.mlp.up_proj", "lm_head", "embed_tokens"]},
        {"target_modules": r".*layers\.(1|2)\..*proj", "exclude_modules": ["layers.1.mlp.up_proj"]},
        {"exclude_modules": ".*mlp.*", "layers_to_transform": [0, 27]},
        {"modules_to_save": ["embed_tokens", "lm_head", "norm", "layers.0.mlp"]},
        {"rank_pattern": ["q_proj=8", "layers.1.mlp.*=4"], "alpha_pattern": [".*v_proj=2"]},
        {"kind": "full", "target_modules": ["nothing"]},
    ],
)
def test_names_that_match_pass(settings: dict[str, Any]) -> None:
    modules = of_facts(describe("Qwen/Qwen2.5-7B", network=False))
    assert modules is not None
    refuse_misnamed(config_of(**settings), modules)


@pytest.mark.parametrize("name", ["q_proj", "layers.0.mlp", "self_attn"])
def test_packed_weights_are_not_trained_in_full(name: str) -> None:
    error = refusal(kind_of_weights="nf4", modules_to_save=[name])
    assert f"adapter.modules_to_save: {name!r} holds model.layers.0" in error.message
    modules = of_facts(describe("Qwen/Qwen2.5-7B", network=False))
    assert modules is not None
    refuse_misnamed(config_of("none", modules_to_save=[name]), modules)
    refuse_misnamed(config_of("nf4", modules_to_save=["embed_tokens", "lm_head", "norm"]), modules)


@pytest.mark.parametrize("model", catalogue.ids())
def test_every_layer_that_is_adapted_may_be_named(model: str) -> None:
    """In every model of the catalogue, so that nothing true is refused."""
    known = catalogue.find(model)
    assert known is not None
    facts = assemble(known)
    modules = of_facts(facts)
    assert modules is not None
    found = targets(facts, AdapterSpec())
    leaves = sorted({target.group.name.rpartition(".")[2] for target in found if target.group.kind == "linear"})
    refuse_misnamed(config_of(target_modules=leaves, exclude_modules=leaves[:1]), modules)
    refuse_misnamed(config_of(layers_to_transform=[facts.layers - 1], modules_to_save=["lm_head"]), modules)
    for kind in ("embedding", "head"):
        names = [group.name.rpartition(".")[2] for group in facts.modules if group.kind == kind]
        refuse_misnamed(config_of(modules_to_save=names), modules)


def test_commands_name_the_nearest_module_before_any_download(tmp_path: Path, command: Cli) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "Who?", "completion": "Me."}) + "\n")
    preset = tmp_path / "mine.toml"
    preset.write_text(
        f'[model]\nid = "Qwen/Qwen2.5-7B"\n[data]\nsource = "{tmp_path / "rows.jsonl"}"\neval_rows = 0\n'
        '[adapter]\ntarget_modules = ["q_proj", "v_prj"]\n'
    )
    checked = command("presets", "check", str(preset))
    assert checked.code == ExitCode.CONFIG
    assert "'v_prj' matches no layer of Qwen/Qwen2.5-7B" in checked.err and "v_proj" in checked.err
    started = command("train", str(preset), "--yes")
    assert started.code == ExitCode.CONFIG and "'v_prj' matches no layer" in started.err
    estimated = command("estimate", str(preset))
    assert "'v_prj' matches no layer: the run will be refused. The nearest is v_proj" in " ".join(estimated.err.split())


def test_invalid_regular_expression_is_refused_with_its_key() -> None:
    with pytest.raises(ValueError, match="regular expression"):
        AdapterSpec(target_modules="(q_proj")
    with pytest.raises(ValueError, match="regular expression"):
        AdapterSpec(rank_pattern=["(q_proj=8"])
