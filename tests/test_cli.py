"""The command line: stdout is data, stderr is narration, and each mistake has one line and its exit code."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import __version__, cli, paths
from qlora_tui.config.run import RunConfig
from qlora_tui.runs import events, store

__all__ = ["command", "fake_worker"]


def test_without_a_command_the_help_is_shown(command: Cli) -> None:
    result = command()
    assert result.code == 0
    assert "train" in result.out and "resume" in result.out and "Exit codes" in result.out


def test_the_version(command: Cli) -> None:
    assert command("--version").out == f"qlora-tui {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "trian"),
        (["train", "--no-such-option"], 2, "--no-such-option"),
        (["train"], 2, "nothing to train"),
        (["train", "startre"], 4, "Did you mean 'starter'"),
        (["train", "missing.toml"], 4, "missing.toml"),
        (["train", "starter", "--set", "training.epoch=1"], 3, "training.epochs"),
        (["train", "starter", "--set", "training.epochs=many"], 3, "training.epochs"),
        (["train", "starter", "--name", "../evil"], 2, "not a legal run name"),
        (["train", "starter", "--data", "missing.jsonl"], 4, "missing.jsonl"),
        (["watch", "nobody"], 4, "nobody"),
        (["stop", "nobody"], 4, "nobody"),
        (["resume", "nobody"], 4, "nobody"),
        (["runs", "show", "nobody"], 4, "nobody"),
        (["runs", "rm", "nobody", "--yes"], 4, "nobody"),
    ],
)
def test_a_mistake_is_one_error_with_its_exit_code(command: Cli, words: list[str], code: int, said: str) -> None:
    result = command(*words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Traceback" not in result.err
    assert not paths.runs().exists(), "nothing half-written"


def test_a_fault_of_the_program_leaves_one_line_and_a_traceback_in_a_file(
    command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault() -> None:
        raise ZeroDivisionError("by \x1b[31mzero")

    monkeypatch.setattr("qlora_tui.runs.store.all_runs", fault)
    result = command("runs", "list")
    assert result.code == 1
    assert "internal error: ZeroDivisionError: by zero" in result.err
    assert "Traceback" not in result.err
    file = paths.cache() / "last-traceback.txt"
    assert str(file) in result.err
    assert "in fault" in file.read_text()
    monkeypatch.setenv("QLORA_TUI_DEBUG", "1")
    assert "in fault" in command("runs", "list").err


def test_a_reader_that_goes_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        store.create(f"run-{number}", RunConfig(), {"model": "m" * 5000})
    child = subprocess.Popen(
        [sys.executable, "-m", "qlora_tui", "runs", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.read(1)
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() in (0, 1)


def test_paths_are_data(command: Cli, home: Path) -> None:
    shown = json.loads(command("paths", "--json").out)
    assert shown["runs"] == str(home / "data" / "runs")
    assert str(home / "data" / "runs") in command("paths").out


def test_lists_of_nothing(command: Cli) -> None:
    assert json.loads(command("runs", "list", "--json").out) == {"schema_version": 1, "runs": []}
    result = command("runs", "list")
    assert result.out == ""
    assert "no runs yet" in result.err


def test_foreign_text_in_a_list_is_inert(command: Cli) -> None:
    hostile = "[red]model[/red]\x1b]0;title\x07\x1b[2J\nrow\u202e"
    store.create("one", RunConfig(), {"model": hostile, "data": hostile})
    for words in (["runs", "list"], ["runs", "show", "one"]):
        result = command(*words)
        assert "[red]model[/red]" in result.out
        assert not {"\x1b", "\x07", "\u202e"} & set(result.out)
    assert len(command("runs", "list").out.splitlines()) == 2, "the headings and the run"
    assert json.loads(command("runs", "list", "--json").out)["runs"][0]["model"] == hostile


def test_a_damaged_run_is_shown_and_its_configuration_named(command: Cli) -> None:
    run = store.create("one", RunConfig(), {})
    run.plan.write_text("{")
    ready = events.DatasetReady(train_rows=40, eval_rows=0).model_dump_json().encode()
    run.events.write_bytes(b"\x00\xff nonsense\n" + ready + b"\n")
    assert "\none\tcreated" in command("runs", "list").out
    assert "data    starter, 40 training rows" in command("runs", "show", "one").out
    run.config.write_text("[model\n")
    result = command("runs", "show", "one", "--json")
    assert result.code == 3
    assert str(run.config) in result.err


def test_removing_asks_first(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("one", RunConfig(), {})
    refused = command("runs", "rm", "one")
    assert refused.code == 2
    assert "--yes" in refused.err
    terminal = io.StringIO("n\ny\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert command("runs", "rm", "one").code == 8
    assert store.find("one")
    assert command("runs", "rm", "one").code == 0
    assert store.all_runs() == []
    store.create("one", RunConfig(), {})
    assert command("runs", "rm", "one", "--yes").code == 0
    assert store.all_runs() == []


def test_a_runs_folder_that_cannot_be_made_is_a_storage_error(
    command: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QLORA_TUI_RUNS", str(tmp_path / "file" / "runs"))
    result = command("train", "starter")
    assert result.code == 11
    assert str(tmp_path / "file") in result.err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_read_only_or_full_disk_is_one_error_with_a_way_out(
    command: Cli, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    result = command("train", "starter")
    assert result.code == 11
    assert os.strerror(number) in result.err
    assert "QLORA_TUI_RUNS" in result.err
    assert list(paths.runs().iterdir()) == []


def test_the_doctor_tries_the_libraries(command: Cli) -> None:
    result = command("doctor", "--json")
    findings = {finding["subject"]: finding for finding in json.loads(result.out)["findings"]}
    assert result.code == 0, result.err
    assert findings["bitsandbytes on cpu"]["verdict"] == "ok"
    assert "NF4" in findings["bitsandbytes on cpu"]["detail"]
    assert findings["hub"]["verdict"] == "problem"
    assert all(finding["remedy"] for finding in findings.values() if finding["verdict"] in ("problem", "broken"))


def test_a_broken_library_is_named_with_a_remedy_and_its_exit_code(
    command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qlora_tui.checks._CHILD", "no_such_module")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = command("doctor")
    assert result.code == 12
    assert "BROKEN   libraries:" in result.out and "no_such_module" in result.out
    assert "note     hub: off" in result.out
    assert "pip install" in result.err


def test_every_command_has_help(command: Cli) -> None:
    groups: list[list[str]] = [[]]
    seen = 0
    while groups:
        words = groups.pop()
        help_ = command(*words, "--help")
        assert help_.code == 0, words
        listed = help_.out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
        for line in listed:
            name, _, text = line.strip().partition(" ")
            if line.startswith("  ") and not line.startswith("   "):
                assert text.strip(), f"{words} {name} says nothing"
                groups.append([*words, name])
        seen += 1
    assert seen > 20


def test_the_exit_codes_in_the_help_are_those_of_the_errors() -> None:
    from qlora_tui.errors import ExitCode

    epilog = str(cli.app.info.epilog)
    assert [int(word) for word in epilog.replace(":", "").replace(",", "").split() if word.isdigit()] == list(ExitCode)
