"""Every key of a turn is read, refused with the reason, or named in a note."""

import json
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.detect import UnclearFormatError
from qlora_tui.data.load import Loaded, load_source, to_example
from qlora_tui.errors import DataError

Row = dict[str, Any]


def load(folder: Path, *rows: Row) -> Loaded:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_source(SourceSpec(source=str(path)))


def answered(content: str | None = "4", **more: Any) -> Row:
    return {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": content, **more}]}


@pytest.mark.parametrize("key", ["arguments", "parameters", "input", "args"])
def test_arguments_of_a_call_are_read_under_each_name(tmp_path: Path, key: str) -> None:
    loaded = load(tmp_path, answered(None, tool_calls=[{"name": "f", key: {"city": "Rome"}}]))
    (call,) = to_example(loaded.dataset[0]).turns[1]["tool_calls"]
    assert call["function"]["arguments"] == {"city": "Rome"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (answered(None, tool_calls=[{"name": "f", "kwargs": {"a": 1}}]), "'kwargs' in the call of 'f' would not be"),
        (
            answered("", tool_calls=[{"name": "f"}], function_call={"name": "g"}),
            "tool_calls and function_call differ",
        ),
        (answered(reasoning_content="one", thinking="two"), "reasoning_content and thinking differ"),
        (answered("4", value="5"), "content and value differ"),
    ],
)
def test_second_text_of_a_turn_is_refused(tmp_path: Path, row: Row, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load(tmp_path, row)


def test_same_text_under_two_keys_is_read_once(tmp_path: Path) -> None:
    loaded = load(tmp_path, answered("4", value="4", reasoning="r", thinking="r"))
    turn = to_example(loaded.dataset[0]).turns[1]
    assert (turn["content"], turn["reasoning_content"]) == ("4", "r")
    assert not loaded.notes


def test_other_keys_of_turns_are_named_in_a_note(tmp_path: Path) -> None:
    loaded = load(tmp_path, answered(tool_plan="first look", masked=0))
    assert "keys of turns that are not trained: tool_plan, masked" in loaded.notes


def test_a_list_is_not_suggested_as_context(tmp_path: Path) -> None:
    rows = [{"question": f"q{at}?", "choices": [f"red {at}", "blue"], "answer": f"red {at}."} for at in range(4)]
    with pytest.raises(UnclearFormatError) as caught:
        load(tmp_path, *rows)
    assert caught.value.choices == [{"data.ignore_columns": ["choices"]}]
