"""Paths in a settings file are relative to the folder of the file."""

from pathlib import Path

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import paths
from qlora_tui.config.data import KNOWN_SETS
from qlora_tui.config.model import STARTER
from qlora_tui.config.overrides import resolve
from qlora_tui.config.toml_file import load
from qlora_tui.data.registry import KNOWN
from qlora_tui.errors import ConfigError
from qlora_tui.runs import store

__all__ = ["command", "fake_worker"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a model and a settings file; the current folder is a different one."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for each in (folder / "model", folder / "sets" / "more", elsewhere):
        each.mkdir(parents=True)
    for name in ("rows.jsonl", "sets/eval.jsonl", "oasst1", "mmlu.json"):
        (folder / name).write_text('{"prompt": "a", "response": "b"}\n')
    monkeypatch.chdir(elsewhere)
    return folder


def written(project: Path, text: str) -> Path:
    file = project / "run.toml"
    file.write_text(text)
    return file


def test_relative_paths_are_relative_to_the_file(project: Path) -> None:
    config = load(
        written(
            project,
            """
            [model]
            id = "model"
            [data]
            source = "rows.jsonl"
            eval_source = "sets/eval.jsonl"
            mix = [{ source = "sets/more" }, { source = "./missing" }, { source = "../elsewhere/x.jsonl" }]
            [training]
            mmlu_file = "mmlu.json"
            """,
        )
    )
    assert config.model.id == str(project / "model")
    assert config.data.source == str(project / "rows.jsonl")
    assert config.data.eval_source == str(project / "sets" / "eval.jsonl")
    assert [part.source for part in config.data.mix] == [
        str(project / "sets" / "more"),
        str(project / "missing"),
        str(project.parent / "elsewhere" / "x.jsonl"),
    ]
    assert config.training.mmlu_file == str(project / "mmlu.json")


@pytest.mark.parametrize(
    ("model", "source"),
    [("starter", "starter"), ("Qwen/Qwen3-0.6B", "oasst1"), ("gpt2", "owner/set"), ("a/b.c", "owner/set-v1.0")],
)
def test_names_of_known_sets_and_hub_ids_are_kept(project: Path, model: str, source: str) -> None:
    config = load(written(project, f'[model]\nid = "{model}"\n[data]\nsource = "{source}"\n'))
    assert (config.model.id, config.data.source) == (model, source)


def test_known_set_names_take_precedence_over_paths() -> None:
    assert set(KNOWN_SETS) == {STARTER, *KNOWN}


def test_file_found_only_in_the_current_folder_is_refused(project: Path) -> None:
    data = project.parent / "elsewhere" / "data"
    data.mkdir()
    (data / "mine.jsonl").write_text("")
    file = written(project, '[data]\nsource = "data/mine.jsonl"\n')
    with pytest.raises(ConfigError, match="no such file in") as raised:
        load(file)
    assert str(project / "data") in raised.value.message
    assert "relative to its folder" in raised.value.hint


def test_flag_paths_are_relative_to_the_current_folder_and_override_the_file(project: Path) -> None:
    file = written(project, '[data]\nsource = "rows.jsonl"\n')
    assert resolve(None, file, ["data.source=here.jsonl"]).data.source == "here.jsonl"


def test_user_preset_finds_its_data_from_any_folder(
    project: Path, command: Cli, fake_worker: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert command("presets", "new", "mine", "--from", "starter", "--set", "data.source=rows.jsonl").code == 0
    monkeypatch.chdir(project.parent)
    assert command("train", "mine", "--name", "one", "--detach").code == 0
    assert store.find("one").load_config().data.source == str(project / "rows.jsonl")
    (paths.user_presets() / "beside.toml").write_text('[data]\nsource = "own.jsonl"\n')
    assert resolve("beside").data.source == str(paths.user_presets() / "own.jsonl")


def test_a_file_is_trained_from_any_folder(project: Path, command: Cli, fake_worker: object) -> None:
    file = written(project, '[data]\nsource = "rows.jsonl"\n')
    result = command("train", str(file), "--name", "one", "--detach")
    assert result.code == 0, result.err
    assert store.find("one").load_config().data.source == str(project / "rows.jsonl")


@pytest.mark.parametrize("text", ['""', '"\\u0000"', "3", f'"{"x" * 5000}.jsonl"', '"~nobody/x.jsonl"'])
def test_values_that_are_not_paths_are_left_to_validation(project: Path, text: str) -> None:
    file = written(project, f"[data]\nsource = {text}\n")
    try:
        load(file)
    except ConfigError as error:
        assert "data.source" in error.message
