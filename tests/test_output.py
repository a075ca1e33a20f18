"""Output for scripts: versioned JSON, header lines in pipes, and readers that close the pipe early."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Cli, command, fake_worker

from qlora_tui import cli
from qlora_tui.cli.output import SCHEMA_VERSION, write_json
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ExitCode
from qlora_tui.runs import store

__all__ = ["command", "fake_worker"]

WITHOUT_JSON = {"web", "queue run", "arena vote"}
"""Commands without JSON: a server, a loop that only prints progress, and an interactive vote."""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command by its words."""
    for name, found in (group or typer.main.get_command(cli.app)).commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


@pytest.mark.parametrize(("words", "found"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_every_command_writes_json(words: str, found: Any) -> None:
    options = {option for parameter in found.params for option in parameter.opts}
    assert ("--json" in options) != (words in WITHOUT_JSON)


@pytest.mark.parametrize(
    "words",
    [
        "runs list", "runs bin", "queue list", "models list", "models list --known", "models info starter",
        "presets list", "presets show starter", "presets check starter", "data list", "paths", "estimate starter",
        "estimate --history",
    ],
)  # fmt: skip
def test_document_starts_with_its_version(command: Cli, words: str) -> None:
    result = command(*words.split(), "--json")
    assert result.code == 0, result.err
    assert next(iter(json.loads(result.out).items())) == ("schema_version", SCHEMA_VERSION)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["runs", "show", "nobody"], ExitCode.NOT_FOUND, "no run named 'nobody'"),
        (["runs", "show"], ExitCode.USAGE, "Missing argument 'RUN'"),
        (["runs", "nothing"], ExitCode.USAGE, "No such command 'nothing'"),
        (["train", "starter", "--set", "training.epochs=-1"], ExitCode.CONFIG, "training.epochs"),
        (["stop", "nobody"], ExitCode.NOT_FOUND, "no run named 'nobody'"),
        (["presets", "show", "nobody"], ExitCode.NOT_FOUND, "nobody"),
        (["estimate", "no/such/model"], ExitCode.MODEL, "no/such/model"),
    ],
)
def test_errors_are_json(command: Cli, words: list[str], code: ExitCode, message: str) -> None:
    result = command(*words, "--json")
    assert result.code == code
    answer = json.loads(result.out)
    assert (answer["schema_version"], answer["error"]["exit_code"]) == (SCHEMA_VERSION, code)
    assert message in answer["error"]["message"]
    assert message in result.err
    assert command(*words).out == "", "without --json stdout stays empty"


def test_internal_errors_are_json(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(store, "all_runs", broken)
    result = command("runs", "list", "--json")
    assert result.code == ExitCode.INTERNAL
    assert json.loads(result.out)["error"]["message"] == "internal error: ZeroDivisionError: by zero"


def test_a_failed_run_ends_its_events_with_the_error(command: Cli, fake_worker: Any) -> None:
    fake_worker("fail")
    lines = command("train", "starter", "--name", "one", "--json").out.splitlines()
    assert json.loads(lines[-2])["kind"] == "failed"
    assert json.loads(lines[-1])["error"]["exit_code"] == ExitCode.DATA


def test_one_command_writes_one_document(command: Cli, tmp_path: Path) -> None:
    """The document contains the error; the exit code and stderr repeat it."""
    bad = tmp_path / "bad.toml"
    bad.write_text("[model]\nid = 3\n")
    result = command("presets", "check", "starter", str(bad), "--json")
    assert result.code == ExitCode.CONFIG
    good, wrong = json.loads(result.out)["checked"]
    assert (good["valid"], wrong["valid"]) == (True, False)
    assert "model.id" in wrong["message"]


def test_nonfinite_numbers_are_null_and_lone_surrogates_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    write_json({"loss": float("nan"), "text": "a\ud800", "list": [float("inf")]})
    out = capfd.readouterr().out
    assert json.loads(out) == {"schema_version": 1, "loss": None, "text": "a\ud800", "list": [None]}
    assert "\\ud800" in out


@pytest.mark.parametrize(
    ("words", "headings"),
    [
        ("runs list", "name\tstatus\tstep"),
        ("presets list", "name\torigin\ttitle"),
        ("models list --known", "id\tparameters"),
        ("runs compare one two", "setting or result\tone\ttwo"),
    ],
)
def test_a_table_in_a_pipe_has_headings(command: Cli, words: str, headings: str) -> None:
    for name in ("one", "two"):
        store.create(name, RunConfig(), {})
    assert command(*words.split()).out.startswith(headings)


@pytest.mark.parametrize(
    "words", ["--help", "runs list", "presets list", "models list --known --json", "data convert starter", "paths"]
)
def test_reader_that_closes_the_pipe_is_not_an_error(words: str) -> None:
    store.create("one", RunConfig(), {})
    reading, writing = os.pipe()
    os.close(reading)
    program = subprocess.run(
        [sys.executable, "-m", "qlora_tui", *words.split()], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (program.returncode, "Traceback" in program.stderr) == (0, False), program.stderr
