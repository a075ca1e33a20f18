"""Paths in environment variables mean the same in every process of a command."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import paths

__all__ = ["command", "fake_worker"]


@pytest.mark.parametrize("variable", ["QLORA_TUI_HOME", "QLORA_TUI_RUNS"])
def test_relative_home_starts_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Cli, fake_worker: Callable[[str], None], variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "mine/here")
    assert command("train", "starter", "--name", "one").code == 0
    runs = tmp_path / "mine" / "here" / ("data/runs" if variable == "QLORA_TUI_HOME" else "")
    assert (runs / "one" / "events.jsonl").is_file()
    assert not list(runs.glob("one/mine")), "the worker must not resolve the path from its own folder"


def test_child_environment_has_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "hub")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["lib", "", "/opt/x"]))
    child = paths.child_environment(EXTRA="1")
    assert child["HF_HOME"] == str(tmp_path / "hub")
    assert child["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "lib"), str(tmp_path), "/opt/x"])
    assert child["EXTRA"] == "1"


def test_relative_platform_folders_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QLORA_TUI_HOME")
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "somewhere")
    folders = (paths.data(), paths.config(), paths.cache(), paths.runs(), paths.hub_cache())
    assert all(folder.is_absolute() for folder in folders)


def test_child_environment_without_a_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("PYTHONPATH", "lib")
    assert paths.child_environment()["PYTHONPATH"] == "lib"
