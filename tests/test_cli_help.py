"""`--help` of every command at 80 columns, and the completion of names in a shell."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qlora_tui import cli
from qlora_tui.cli import completion
from qlora_tui.cli.manual import examples
from qlora_tui.config.run import RunConfig
from qlora_tui.runs import store


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, f"{path} {name}")


COMMANDS = dict(_walk(typer.main.get_command(cli.app), "qlora-tui"))
LEAVES = [path for path, command in COMMANDS.items() if not hasattr(command, "commands")]


def shown(path: str) -> str:
    command = COMMANDS[path]
    return str(command.get_help(typer.Context(command, info_name=path, terminal_width=80, max_content_width=80)))


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_80_columns_and_explains_everything(path: str) -> None:
    text = shown(path)
    assert all(len(line) <= 80 for line in text.splitlines())
    listed = text.partition("Commands:\n")[2].partition("\n\n")[0]
    assert "..." not in listed, "a summary is cut off"
    silent = [one.name for one in COMMANDS[path].params if not getattr(one, "hidden", False) and not one.help]
    assert not silent, "an option or argument has no help"
    summary = COMMANDS[path].help.partition("\n")[0]
    assert summary.endswith(".") and summary[0].isupper() and not summary.partition(" ")[0].endswith("s")


@pytest.mark.parametrize("path", [path for path in LEAVES if examples(path)])
def test_help_ends_with_an_example_from_the_manual(path: str) -> None:
    assert next(line for line in examples(path) if len(line) <= 78) in shown(path)


def test_many_options_are_grouped() -> None:
    text = shown("qlora-tui data inspect")
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:4] == ["Arguments:", "Training:", "Data:", "Other options:"]


def test_names_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()
    store.create("mine", RunConfig(), {})
    assert completion.runs("mi") == ["mine"]
    assert "starter" in completion.presets("st")
    assert completion.targets("my") == ["my.toml"]
    assert completion.models("mod") == ["model/"] and "Qwen/Qwen3-0.6B" in completion.models("Qwen/Qwen3")
    assert completion.datasets("rows") == ["rows.jsonl"] and "alpaca" in completion.datasets("alp")
    assert completion.settings("training.learning") == ["training.learning_rate="]
    assert "quantization.kind=nf4" in completion.settings("quantization.kind=n")
    assert completion.settings("no.such=") == []


def test_the_shell_is_answered() -> None:
    asked = {"_QLORA_TUI_COMPLETE": "complete_bash", "COMP_WORDS": "qlora-tui train guan", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "qlora_tui"], env={**os.environ, **asked}, check=True, capture_output=True, text=True
    )
    assert "guanaco-7b" in done.stdout.split()
