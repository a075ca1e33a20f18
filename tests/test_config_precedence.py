"""defaults < preset < file < --set < later edits."""

from pathlib import Path

import pytest

from qlora_tui import paths
from qlora_tui.config.command_line import command_line
from qlora_tui.config.overrides import edited, resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.config.source_settings import reset_note
from qlora_tui.errors import ConfigError, NotFoundError


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))
    folder = paths.user_presets()
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        "[adapter]\nrank = 2\nalpha = 2\ndropout = 0.2\n[data]\nmix = [{source = 'a'}]\ncolumns = {prompt = 'p'}\n"
    )
    return "mine"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text("[adapter]\nrank = 3\nalpha = 3\n[data]\nmix = [{source = 'b'}]\ncolumns = {response = 'r'}\n")
    return path


def test_nothing_given_means_the_defaults() -> None:
    assert resolve() == RunConfig()


def test_each_layer_wins_over_those_below_it(preset: str, file: Path) -> None:
    config = resolve(preset, file, ["adapter.rank=4", "adapter.rank=5"])
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (5, 3, 0.2)
    assert config.adapter.kind == "lora"
    assert resolve(preset, file).adapter.rank == 3
    assert resolve(preset).adapter.rank == 2
    assert edited(config, ["adapter.rank=6"]).adapter.rank == 6


def test_tables_are_merged_and_lists_are_replaced(preset: str, file: Path) -> None:
    data = resolve(preset, file).data
    assert [source.source for source in data.mix] == ["b"]
    assert (data.columns.prompt, data.columns.response) == ("p", "r")


def test_a_layer_may_lean_on_the_one_below(preset: str, file: Path) -> None:
    (paths.user_presets() / "evaluated.toml").write_text("[data]\neval_rows = 10\n[training]\neval_every_steps = 5\n")
    file.write_text("[training]\nbest_checkpoint = true\n")
    assert resolve("evaluated", file).training.best_checkpoint
    with pytest.raises(ConfigError, match=r"data\.eval_rows from the defaults"):
        resolve(preset, file)


def test_excluding_settings_of_two_layers_are_named_with_both_places(preset: str, file: Path) -> None:
    file.write_text("[training]\npacking = true\n")
    with pytest.raises(ConfigError) as caught:
        resolve(preset, file, ["training.group_by_length=true"])
    assert f"training.packing from {file}:2" in caught.value.message
    assert "training.group_by_length from --set training.group_by_length=true" in caught.value.message


def test_a_mistake_is_reported_where_it_is_even_if_a_later_layer_would_hide_it(preset: str, file: Path) -> None:
    (paths.user_presets() / "mine.toml").write_text("[adapter]\nrank = 'two'\n")
    with pytest.raises(ConfigError, match=r"mine\.toml:2: adapter\.rank"):
        resolve(preset, file)


def test_an_unknown_preset_names_the_nearest(preset: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve("guanaco7b")
    assert caught.value.hint == "Did you mean 'guanaco-7b'?"


SHIPPED = "llama-3.1-8b"
"""On oasst1, format guanaco-turns, with evaluation rows and a schedule for them."""


def test_another_source_resets_format_columns_and_evaluation_rows(tmp_path: Path) -> None:
    config = resolve(SHIPPED, overrides=["data.source=mine.jsonl"])
    assert (config.data.format, config.data.eval_rows, config.training.eval_every_steps) == ("auto", 0, None)
    assert config.training.max_length_tokens == 2048
    edits = ["data.columns.prompt=q", "data.split=train[:9]", "data.eval_source=held.jsonl", "data.max_eval_rows=3"]
    before = edited(resolve(SHIPPED), edits)
    after = edited(before, ["data.source=mine.jsonl"])
    assert after.data == RunConfig.model_validate({"data": {"source": "mine.jsonl"}}).data
    assert "data.columns.prompt = q" in reset_note(before, after)
    assert "data.eval_source = held.jsonl" in reset_note(before, after)


def test_settings_given_with_the_source_apply_in_any_order() -> None:
    given = ["data.format=alpaca", "data.eval_rows=5", "data.source=mine.jsonl", "data.columns.prompt=q"]
    for overrides in (given, given[::-1]):
        config = resolve(SHIPPED, overrides=overrides)
        assert (config.data.format, config.data.eval_rows, config.data.columns.prompt) == ("alpaca", 5, "q")
        assert config.training.eval_every_steps == 100


def test_the_same_source_resets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(SHIPPED, overrides=["data.source=oasst1"]) == resolve(SHIPPED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    first = resolve(overrides=["data.source=mine.jsonl", "data.format=alpaca"])
    assert edited(first, [f"data.source={tmp_path / 'mine.jsonl'}"]).data.format == "alpaca"


def test_another_source_resets_settings_that_need_evaluation_rows(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    file.write_text(
        "[data]\neval_rows = 8\n[training]\neval_every_steps = 5\nsave_every_steps = 5\nbest_checkpoint = true\n"
        "early_stopping_evals = 2\n"
    )
    config = resolve(file=file, overrides=["data.source=mine.jsonl"])
    assert not config.training.best_checkpoint
    assert config.training.early_stopping_evals is None
    kept = resolve(file=file, overrides=["data.source=mine.jsonl", "data.eval_rows=4"])
    assert kept.training.best_checkpoint


def test_file_with_another_source_resets_preset_settings(preset: str, file: Path) -> None:
    file.write_text("[data]\nsource = 'mine.jsonl'\n")
    assert resolve(preset, file).data.columns.prompt is None


@pytest.mark.parametrize("edits", [[], ["data.format=guanaco-turns"], ["data.eval_rows=256"], ["data.config=x"]])
def test_the_command_of_a_preset_with_other_data_starts_the_same_run(edits: list[str]) -> None:
    config = edited(resolve(SHIPPED, overrides=["data.source=mine.jsonl"]), edits)
    command = command_line(config, SHIPPED)
    assert command.config == config
    assert "--data mine.jsonl" in command.shell_lines()
