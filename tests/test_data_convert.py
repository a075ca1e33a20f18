"""`qlora-tui data convert` and `data list`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from data_files import GOOD, load, put
from typer.testing import CliRunner

from qlora_tui.cli import data_sources
from qlora_tui.errors import DataError, StorageError, UsageError

app = typer.Typer()
data_sources.register(app)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_convert_writes_messages_that_load_again(tmp_path: Path) -> None:
    source = put(tmp_path / "a.csv", 'instruction,input,output\nAdd.,1 and 2,3\nSay hi.,,"hi\nyou"\n')
    out = tmp_path / "out.jsonl"
    assert run("convert", str(source), "--out", str(out)).exit_code == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert written[0]["messages"][0] == {"role": "user", "content": "Add.\n\n1 and 2"}
    assert written[1]["messages"][1] == {"role": "assistant", "content": "hi\nyou"}
    assert load(out).detection.format == "messages"


def test_convert_splits_conversations_kept_as_one_text(tmp_path: Path) -> None:
    source = put(tmp_path / "g.jsonl", json.dumps({"text": "### Human: a### Assistant: b"}) + "\n")
    done = run("convert", str(source))
    assert [turn["content"] for turn in json.loads(done.stdout.splitlines()[0])["messages"]] == ["a", "b"]


def test_convert_replaces_the_file_whole_or_not_at_all(tmp_path: Path) -> None:
    out = put(tmp_path / "out.jsonl", "what was there")
    done = run("convert", str(put(tmp_path / "a.jsonl", GOOD * 50 + "{\n")), "--out", str(out))
    assert isinstance(done.exception, DataError)
    assert out.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl"]


def test_converted_rows_are_as_private_as_the_user_makes_files(tmp_path: Path) -> None:
    source, out = put(tmp_path / "a.jsonl", GOOD), tmp_path / "out.jsonl"
    before = os.umask(0o077)
    try:
        assert run("convert", str(source), "--out", str(out)).exit_code == 0
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o600


def test_convert_counts_what_it_skips(tmp_path: Path) -> None:
    done = run("convert", str(put(tmp_path / "a.jsonl", GOOD * 2 + "{\n")), "--skip-bad-rows")
    assert len(done.stdout.splitlines()) == 2
    assert "1 row skipped" in done.stderr
    assert "a.jsonl:3" in done.stderr


def test_convert_takes_columns_by_hand(tmp_path: Path) -> None:
    source = put(tmp_path / "a.jsonl", '{"x": "b", "y": "a"}\n')
    done = run("convert", str(source), "--column", "prompt=y", "--column", "response=x")
    assert [turn["content"] for turn in json.loads(done.stdout)["messages"]] == ["a", "b"]
    assert isinstance(run("convert", str(source), "--column", "promt=y").exception, UsageError)
    assert isinstance(run("convert", str(source), "--format", "mesages").exception, UsageError)


def test_convert_to_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    done = run("convert", str(put(tmp_path / "a.jsonl", GOOD)), "--out", str(tmp_path / "no" / "out.jsonl"))
    assert isinstance(done.exception, StorageError)


def test_list_shows_every_known_set_with_its_licence() -> None:
    listed = json.loads(run("list", "--json").stdout)["sets"]
    names = {one["name"] for one in listed}
    assert {"starter", "oasst1", "hh-rlhf", "alpaca", "alpaca-clean", "self-instruct", "longform"} <= names
    assert {"chip2", "unnatural-instructions", "flan-v2"} <= names
    assert all(one["license"] and one["rows"] and one["format"] for one in listed)
    text = run("list").stdout
    assert all(name in text for name in names)
