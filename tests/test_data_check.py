"""`data check` shows rows as read, as trained and as prompted."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command

from qlora_tui.errors import ExitCode

__all__ = ["command"]  # a fixture

Row = dict[str, Any]


def said(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def test_data_check_shows_the_row_the_trained_text_and_the_prompt(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [said("user", "Hi"), said("assistant", "BAD", weight=0), said("user", "No"), said("assistant", "GOOD")]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    result = command("data", "check", str(path), "--json")
    assert result.code == ExitCode.OK
    (row,) = json.loads(result.out)["rows"]
    assert row["status"] == "equal"
    assert row["trained"] == "GOOD<|im_end|>"
    assert row["prompt"].endswith("<|im_start|>user\nNo<|im_end|>\n<|im_start|>assistant\n")
    assert [turn["content"] for turn in row["turns"]] == ["Hi", "BAD", "No", "GOOD"]


@pytest.mark.parametrize("key", [{"weight": "0"}, {"train": "false"}, {"weight": 0.5}])
def test_data_check_fails_for_a_row_that_cannot_be_read(tmp_path: Path, command: Cli, key: Row) -> None:
    path = tmp_path / "rows.jsonl"
    bad = [said("user", "Hi"), said("assistant", "BAD", **key)]
    path.write_text(
        json.dumps({"messages": [said("user", "Hi"), said("assistant", "Hello.")]})
        + "\n"
        + json.dumps({"messages": bad})
        + "\n"
    )
    result = command("data", "check", str(path), "--json")
    assert result.code == ExitCode.DATA
    assert [(row["origin"], row["status"]) for row in json.loads(result.out)["rows"]] == [
        ("rows.jsonl:2", "refused"),
        ("rows.jsonl:1", "equal"),
    ]


def test_data_check_reads_the_columns_of_all_rows(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Where is {number}?", "response": f"At {number}."} for number in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "system": "Be short."}]))
    result = command("data", "check", str(path))
    assert result.code == ExitCode.DATA
    assert "rows.jsonl:301: column 'system' first appears here" in result.err


def test_data_check_fails_without_a_trained_answer(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"messages": [said("user", "Hi"), said("assistant", "Hello")]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"messages": [said("user", "Only?")]}) + "\n")
    result = command("data", "check", str(path))
    assert result.code == ExitCode.DATA
    assert "1 of 2 rows fail; the first: rows.jsonl:2: not trained, no answer" in result.err
    assert "rows.jsonl:1\tequal" in result.out
