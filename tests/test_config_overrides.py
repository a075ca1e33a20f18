"""`--set`: every setting can be set, and a wrong one is explained."""

from typing import Any

import pytest

from qlora_tui.config.fields import Field, fields
from qlora_tui.config.overrides import edited, resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError

NEEDED = {
    "adapter.kind": ["quantization.kind=none"],
    "quantization.kind": ["adapter.kind=full"],
    "training.best_checkpoint": ["data.eval_rows=10", "training.eval_every_steps=50"],
    "training.early_stopping_evals": ["data.eval_rows=10", "training.eval_every_steps=50"],
    "data.streaming": ["training.max_steps=10"],
}
"""What has to be set as well for a value to be allowed."""
OWN = {
    "data.mix": ('[{source="a", weight=2}, {source="b"}]', None),
    "training.trackers": ("wandb, mlflow", ["wandb", "mlflow"]),
    "adapter.exclude_modules": ("q_proj,v_proj", ["q_proj", "v_proj"]),
    "adapter.layers_to_transform": ("[0, 1]", [0, 1]),
    "adapter.rank_pattern": ("q_proj=8,v_proj=16", ["q_proj=8", "v_proj=16"]),
    "adapter.alpha_pattern": ('["q_proj=0.5"]', ["q_proj=0.5"]),
    "training.tracker_tags": ("small,lamps", ["small", "lamps"]),
    "adapter.target_modules": ("q_proj,v_proj", ["q_proj", "v_proj"]),
    "adapter.modules_to_save": ('["embed_tokens", "lm_head"]', ["embed_tokens", "lm_head"]),
    "training.sample_prompts": ("Who, in all the world, is Bob?", ["Who, in all the world, is Bob?"]),
    "quantization.kind": ("none", "none"),
    "data.ignore_columns": ("notes", ["notes"]),
}


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _example(field: Field) -> tuple[str, Any]:
    """A text for `--set` and the value it stands for, different from the default."""
    if field.key in OWN:
        return OWN[field.key]
    if field.choices:
        word = next(choice for choice in reversed(field.choices) if choice != field.default)
        return word, word
    if bool in field.kinds:
        return str(not field.default).lower(), not field.default
    if int in field.kinds:
        return "50", 50
    if float in field.kinds:
        return "5e-1", 0.5
    assert field.kinds == (str,)
    return "some text: 1", "some text: 1"


@pytest.mark.parametrize("key", fields())
def test_every_setting_can_be_set(key: str) -> None:
    field = fields()[key]
    text, expected = _example(field)
    config = resolve(overrides=[*NEEDED.get(key, []), f"{key}={text}"])
    assert _value(config, key) != field.default
    if expected is not None:
        assert _value(config, key) == expected


@pytest.mark.parametrize("key", [key for key, field in fields().items() if field.optional])
@pytest.mark.parametrize("nothing", ["", "none", "None"])
def test_a_setting_that_may_be_empty_can_be_emptied(key: str, nothing: str) -> None:
    text, _ = _example(fields()[key])
    config = resolve(overrides=[*NEEDED.get(key, []), f"{key}={text}", f"{key}={nothing}"])
    assert _value(config, key) is None


@pytest.mark.parametrize("key", [key for key, field in fields().items() if field.kinds != (str,) or field.choices])
def test_a_value_of_the_wrong_type_names_key_and_expectation(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=[f"{key}=[[3]]"])
    assert caught.value.message.startswith(f"--set {key}=[[3]]: {key}")
    assert "expected " in caught.value.message


def test_every_setting_explains_itself() -> None:
    for field in fields().values():
        assert len(field.help) > 10, field.key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.mix=[{source='a', columns={prompt='q'}}]", "q"),
        ("data.columns={prompt='q', response='a'}", "q"),
        ("data.columns.prompt='q'", "q"),
        ("data.columns.prompt=q", "q"),
    ],
)
def test_tables_and_what_is_in_them(text: str, value: str) -> None:
    data = resolve(overrides=[text]).data
    assert (data.mix[0].columns if data.mix else data.columns).prompt == value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.learning_rate", ".5", 0.5),
        ("training.learning_rate", "2E-4", 2e-4),
        ("training.learning_rate", "1", 1.0),
        ("training.seed", "1_000", 1000),
        ("training.packing", "True", True),
        ("training.packing", "off", False),
        ("training.gradient_checkpointing", "on", "on"),
        ("data.source", "123", "123"),
        ("data.source", "a=b", "a=b"),
        ("data.source", '"quoted"', "quoted"),
        ("data.split", "train[:10%]", "train[:10%]"),
        ("model.revision", '"none"', "none"),
        ("adapter.target_modules", r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        ("adapter.target_modules", r"x{1,2}_proj", r"x{1,2}_proj"),
        ("training.trackers", "", []),
        ("training.trackers", "none", []),
        ("training.trackers", "wandb", ["wandb"]),
    ],
)
def test_how_values_may_be_written(key: str, text: str, value: Any) -> None:
    assert _value(resolve(overrides=[f"{key}={text}"]), key) == value


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("training.learning_rate", "no '='", "--set training.learning_rate=1e-4"),
        ("training.learning_rat=1", "unknown key 'training.learning_rat'", "'training.learning_rate'"),
        ("trainig.packing=true", "unknown key 'trainig.packing'", "'training.packing'"),
        ("lr=1", "unknown key 'lr'", "'training.learning_rate'"),
        ("=1", "unknown key ''", "Valid tables: model, quantization"),
        ("data.columns.promt=q", "unknown key 'data.columns.promt'", "'data.columns.prompt'"),
        ("training.learning_rate=high", "found 'high', expected a number", "Peak learning rate"),
        ("training.learning_rate=1\nseed = 3", "expected a number", "Peak learning rate"),
        ("data.mix=[{weight=1}]", "data.mix[0].source is missing", ""),
        ("data.mix=[{source='a', weight='x'}]", "data.mix[0].weight: found 'x', expected a number", ""),
        ("training.seed=", "found '', expected a whole number", "Seed"),
    ],
)
def test_mistakes(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=[text])
    assert caught.value.message.startswith(f"--set {text}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_edits_keep_the_rest_and_are_validated_as_a_whole() -> None:
    config = resolve(overrides=["adapter.rank=8", "training.packing=true"])
    later = edited(config, ["adapter.rank=4"])
    assert later.adapter.rank == 4
    assert later.training.packing
    assert config.adapter.rank == 8
    with pytest.raises(ConfigError, match=r"training\.packing from the present configuration"):
        edited(config, ["training.group_by_length=true"])
