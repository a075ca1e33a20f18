"""A run is a folder: its name, its creation, finding and removing it."""

import os
import shutil
from pathlib import Path

import pytest
from command_line import Cli, command

from qlora_tui import paths
from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError, StorageError, UsageError
from qlora_tui.runs import store
from qlora_tui.runs.freeze import frozen

__all__ = ["command"]


def in_runs() -> list[str]:
    return [path.name for path in paths.runs().iterdir()]


@pytest.mark.parametrize("name", ["a", "Qwen3-4b_v1.2", "0", "x" * 80, "müde", "漢字-1", "हिन्दी", "e\u0301te"])
def test_a_plain_name_is_legal(name: str) -> None:
    run = store.create(name, RunConfig(), {})
    assert store.find(name) == run


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".hidden",
        "..",
        "a/b",
        "../a",
        "a\\b",
        "-a",
        "a b",
        "a\n",
        "x" * 81,
        "漢" * 70,
        "a\u202eb",
        "a\u200b",
        "\u0301a",
        "💾",
        "a\x1b[31m",
        "a\x00b",
    ],
)
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a legal run name"):
        store.create(name, RunConfig(), {})
    assert not paths.runs().exists()


def test_a_run_keeps_the_configuration_it_was_made_with() -> None:
    config = resolve("starter", overrides=["training.seed=7", 'data.system_prompt="say \\"hi\\"\\n"'])
    run = store.create("one", config, {"model": "starter"})
    assert run.load_config() == config
    assert [path.name for path in sorted(run.path.iterdir())] == ["plan.json", "run.toml"]


def test_a_taken_name_is_a_conflict_and_the_first_run_stays() -> None:
    first = store.create("one", resolve(overrides=["training.seed=1"]), {})
    with pytest.raises(RunConflictError, match="'one' exists already"):
        store.create("one", resolve(overrides=["training.seed=2"]), {})
    assert first.load_config().training.seed == 1
    assert in_runs() == ["one"]


def test_a_run_that_cannot_be_written_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise StorageError(f"cannot write {path}: no space left")

    monkeypatch.setattr("qlora_tui.atomic.write_json", full)
    with pytest.raises(StorageError):
        store.create("one", RunConfig(), {})
    assert in_runs() == []


def test_a_file_in_place_of_the_runs_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("QLORA_TUI_RUNS", str(blocked))
    with pytest.raises(StorageError, match=str(blocked)):
        store.create("one", RunConfig(), {})


def test_an_unknown_run_brings_the_nearest_name() -> None:
    store.create("guanaco-7b-1", RunConfig(), {})
    with pytest.raises(NotFoundError) as raised:
        store.find("guanaco-7b-2")
    assert "guanaco-7b-1" in raised.value.hint


def test_free_names_count_up_and_are_legal() -> None:
    assert store.free_name("meta-llama/Llama 3") == "meta-llama-Llama-3-1"
    store.create("starter-1", RunConfig(), {})
    assert store.free_name("starter") == "starter-2"
    assert store.check_name(store.free_name("\x1b[31m../..")) == "31m-1"
    assert store.check_name(store.free_name("漢字")) == "run-1"


def test_a_removed_run_is_gone_and_its_name_is_free() -> None:
    run = store.create("one", RunConfig(), {})
    (run.path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    store.remove(run)
    assert in_runs() == []
    store.create("one", RunConfig(), {})


def test_what_an_interrupted_removal_left_does_not_stand_in_the_way() -> None:
    run = store.create("one", RunConfig(), {})
    shutil.copytree(run.path, paths.runs() / ".removing-one")
    store.remove(run)
    assert in_runs() == []


def test_a_name_that_is_taken_at_the_last_moment_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.create("one", resolve(overrides=["training.seed=1"]), {})
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(RunConflictError, match="'one' exists already"):
        store.create("one", RunConfig(), {})
    assert first.load_config().training.seed == 1
    assert in_runs() == ["one"]


def test_folders_that_are_no_runs_are_not_listed() -> None:
    store.create("older", RunConfig(), {})
    newer = store.create("newer", RunConfig(), {})
    os.utime(newer.config, (2e9, 2e9))
    (paths.runs() / "notes").mkdir()
    shutil.copytree(newer.path, paths.runs() / ".creating-x")
    shutil.copytree(newer.path, paths.runs() / "renamed by hand")
    assert [run.name for run in store.all_runs()] == ["newer", "older"]


def test_a_folder_with_a_name_in_another_script_is_listed_and_found() -> None:
    run = store.create("one", RunConfig(), {})
    run.path.rename(run.path.with_name("e\u0301tude"))
    (listed,) = store.all_runs()
    assert listed.name == "e\u0301tude"
    assert store.find("\u00e9tude") == listed, "typed with a precomposed accent"


def test_run_with_an_illegal_name_is_reported(command: Cli) -> None:
    run = store.create("one", RunConfig(), {})
    run.path.rename(run.path.with_name("renamed by \x1b[31mhand"))
    assert store.all_runs() == []
    listed = command("runs", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "renamed by hand is not listed" in listed.err


def test_paths_are_made_absolute_and_names_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "more.jsonl", "oasst1"):
        (tmp_path / name).write_text("")
    config = frozen(
        resolve(
            overrides=[
                "model.id=./model",
                "data.source=rows.jsonl",
                'data.mix=[{source = "more.jsonl"}, {source = "owner/set"}]',
                "data.eval_source=oasst1",
            ]
        )
    )
    assert config.model.id == str(tmp_path / "model")
    assert config.data.source == str(tmp_path / "rows.jsonl")
    assert [spec.source for spec in config.data.mix] == [str(tmp_path / "more.jsonl"), "owner/set"]
    assert config.data.eval_source == "oasst1", "the name of a known set wins, as it does when the data is read"
