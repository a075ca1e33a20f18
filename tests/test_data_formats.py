"""Which format rows have is found from their structure, and every format becomes turns or text in the right way."""

import json
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.config.data import ColumnMap, SourceSpec
from qlora_tui.data.load import Loaded, load_source, to_example
from qlora_tui.data.rows import Example
from qlora_tui.errors import DataError

Row = dict[str, Any]

HH = "\n\nHuman: Is it\n\nnight?\n\nAssistant: No.\n\nHuman: Sure?\n\nAssistant: Yes."
GUANACO = "### Human: One?### Assistant: Two.### Human: Three?### Assistant: Four."


def load(folder: Path, rows: list[Row] | Row, format_name: str = "auto", **columns: str) -> Loaded:
    path = folder / "rows.dat.jsonl"
    listed = [rows] * 6 if isinstance(rows, dict) else rows
    path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    spec = SourceSpec.model_validate({"source": str(path), "format": format_name, "columns": ColumnMap(**columns)})
    return load_source(spec, sample_rows=100)


def first(loaded: Loaded) -> Example:
    return to_example(loaded.dataset[0])


def said(loaded: Loaded) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in first(loaded).turns]


ASKED = [("user", "a"), ("assistant", "b")]
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("row", "found", "turns"),
    [
        ({"messages": MESSAGES, "id": 3}, "messages", ASKED),
        ({"chat_log": MESSAGES, "id": 3}, "messages", ASKED),
        ({"messages": json.dumps(MESSAGES)}, "messages", ASKED),
        ({"messages": [{"role": "developer", "content": "s"}, *MESSAGES]}, "messages", [("system", "s"), *ASKED]),
        ({"conversations": SHAREGPT}, "sharegpt", ASKED),
        ({"conversations": SHAREGPT, "system": "s"}, "sharegpt", [("system", "s"), *ASKED]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "bot", "value": "b"}]}, "sharegpt", ASKED),
        ({"instruction": "a", "input": "", "output": "b", "text": "all"}, "alpaca", ASKED),
        ({"instruction": "a", "output": "b"}, "alpaca", ASKED),
        ({"instruction": "a", "context": "", "response": "b", "category": "qa"}, "alpaca", ASKED),
        ({"prompt": "a", "completion": "b"}, "prompt-completion", ASKED),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, "prompt-completion", ASKED),
        ({"input": "a", "output": "b", "source": "x"}, "input-output", ASKED),
        ({"question": "a", "answer": "b"}, "two-column", ASKED),
        ({"Question": "a", "Answer": "b", "id": 4}, "two-column", ASKED),
        ({"system_prompt": "s", "question": "a", "response": "b"}, "two-column", [("system", "s"), *ASKED]),
        ({"query": "a", "reply": "b"}, "two-column", ASKED),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", ASKED),
        ({"prompt": "a", "chosen": MESSAGES, "rejected": MESSAGES}, "preference", ASKED),
        (
            {"chosen": HH, "rejected": HH},
            "preference",
            [("user", "Is it\n\nnight?"), ("assistant", "No."), ("user", "Sure?"), ("assistant", "Yes.")],
        ),
        ({"text": "<human>: a\n<bot>: b", "metadata": {"source": "x"}}, "chip2", ASKED),
        (
            {
                "instruction": "i",
                "instances": [{"instruction_with_input": "a", "input": "x", "output": "b", "constraints": "None."}],
            },
            "input-output",
            ASKED,
        ),
    ],
)
def test_conversations_are_recognised_by_structure(tmp_path: Path, row: Row, found: str, turns: Any) -> None:
    loaded = load(tmp_path, row)
    assert loaded.detection.format == found
    assert said(loaded) == turns
    assert loaded.detection.confidence >= 0.8
    assert loaded.detection.evidence


@pytest.mark.parametrize(
    ("row", "found", "text"),
    [
        ({"text": "A plain story."}, "text", "A plain story."),
        ({"content": "A plain story.", "url": "http://x", "id": 3}, "text", "A plain story."),
        ({"anything": "A plain story."}, "text", "A plain story."),
        ({"text": GUANACO}, "guanaco", GUANACO),
    ],
)
def test_finished_text_is_kept_whole(tmp_path: Path, row: Row, found: str, text: str) -> None:
    loaded = load(tmp_path, row)
    assert loaded.detection.format == found
    assert first(loaded).text == text
    assert not first(loaded).turns


def test_the_file_name_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alpaca_sharegpt_messages.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n' * 3)
    assert load_source(SourceSpec(source=str(path)), sample_rows=3).detection.format == "two-column"


def test_guanaco_can_be_split_into_turns(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"text": GUANACO}, "guanaco-turns")
    assert said(loaded) == [("user", "One?"), ("assistant", "Two."), ("user", "Three?"), ("assistant", "Four.")]


def test_hh_can_be_kept_as_the_single_text_of_the_paper(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"chosen": HH, "rejected": "x"}, "hh-rlhf")
    assert first(loaded).text == HH


def test_the_rejected_side_of_a_pair_is_kept(tmp_path: Path) -> None:
    example = first(load(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}))
    assert [turn["content"] for turn in example.rejected] == ["a", "c"]


def test_alpaca_input_stays_apart_from_the_instruction(tmp_path: Path) -> None:
    example = first(load(tmp_path, {"instruction": "Add.", "input": "1 and 2", "output": "3"}))
    assert example.turns[0] == {"role": "user", "content": "Add.", "context": "1 and 2"}


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_input_without_an_instruction_is_the_prompt(tmp_path: Path, instruction: str) -> None:
    loaded = load(tmp_path, {"instruction": instruction, "input": "a", "output": "b"})
    assert said(loaded) == ASKED
    assert "context" not in first(loaded).turns[0]


def test_chip2_keeps_all_turns(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"text": "<human>: a\n<bot>: b\n<human>: c\n<bot>: d"})
    assert [content for _, content in said(loaded)] == ["a", "b", "c", "d"]


def test_reformulations_of_unnatural_instructions_become_examples(tmp_path: Path) -> None:
    instance = {"instruction_with_input": "a", "input": "x", "output": "b"}
    row = {"instruction": "i", "instances": [instance], "reformulations": [instance | {"instruction_with_input": "c"}]}
    loaded = load(tmp_path, [row] * 2)
    assert [to_example(one).turns[0]["content"] for one in loaded.dataset] == ["a", "c", "a", "c"]


def test_tool_turns_are_kept_and_made_one_form(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    row = {
        "messages": [
            {"role": "user", "content": "add"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "function", "name": "add", "content": "1"},
            {"role": "model", "content": "It is 1."},
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    }
    example = first(load(tmp_path, row))
    assert [turn["role"] for turn in example.turns] == ["user", "assistant", "tool", "assistant"]
    assert example.turns[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"x": 1}}
    assert example.turns[2]["name"] == "add"
    assert example.tools[0]["function"]["name"] == "add"


def test_sharegpt_function_calls_become_tool_calls(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "add"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "It is 1."},
    ]
    example = first(load(tmp_path, {"conversations": turns}))
    assert [turn["role"] for turn in example.turns] == ["user", "assistant", "tool", "assistant"]
    assert example.turns[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}


def test_text_parts_of_openai_content_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(load(tmp_path, {"messages": [{"role": "user", "content": parts}]})) == [("user", "ab")]


def test_columns_given_by_hand_win(tmp_path: Path) -> None:
    row = {"q": "a", "reply_text": "b", "prompt": "no", "completion": "no"}
    assert said(load(tmp_path, row, prompt="q", response="reply_text")) == ASKED


def test_a_text_column_given_by_hand_wins(tmp_path: Path) -> None:
    assert first(load(tmp_path, {"prompt": "a", "completion": "b", "full": "ab"}, text="full")).text == "ab"


def test_one_column_given_by_hand_settles_the_other(tmp_path: Path) -> None:
    assert said(load(tmp_path, {"left": "b", "right": "a"}, prompt="right")) == ASKED


@pytest.mark.parametrize(
    "row",
    [
        {"left": "a", "right": "b"},
        {"question": "a", "answer": "b", "prompt": "c", "response": "d"},
        {"problem": "a", "solution": "b", "answer": "c"},
        {"messages": MESSAGES, "conversations": SHAREGPT},
    ],
)
def test_ambiguity_asks_and_says_how_to_answer(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, row)
    assert "data.format = " in caught.value.hint
    assert "data.columns." in caught.value.hint
    for column in row:
        assert column in caught.value.message


def test_rows_that_are_single_messages_are_not_taken_for_finished_text(tmp_path: Path) -> None:
    """As OpenAssistant publishes its trees: a conversation is spread over rows."""
    roles = ("prompter", "assistant")
    tree = [{"message_id": str(at), "parent_id": "0", "text": "words", "role": roles[at % 2]} for at in range(6)]
    with pytest.raises(DataError, match="each row is one message of a conversation") as caught:
        load(tmp_path, tree)
    assert 'data.source = "oasst1"' in caught.value.hint
    assert load(tmp_path, tree, text="text").detection.format == "text"
    told = [{"text": "words", "role": "a king"}] * 6
    assert load(tmp_path, told).detection.format == "text"


@pytest.mark.parametrize("row", [{"question": "a", "answer": [4]}, {"source": "x", "conversations": [["a", "b"]]}])
def test_a_column_is_not_urged_as_text_where_others_hold_what_is_meant(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DataError, match="no reading fits most of the rows") as caught:
        load(tmp_path, row)
    assert caught.value.hint.startswith("Say which columns to use")
    assert f'only {next(iter(row))!r}, as text: data.format = "text"' in caught.value.hint


def test_the_evidence_names_no_reading_that_nobody_means(tmp_path: Path) -> None:
    found = load(tmp_path, {"prompt": "a", "prompt_id": "7", "messages": MESSAGES}).detection
    assert not [said for said in found.evidence if "also possible" in said]


def test_what_turns_hold_besides_is_said_to_be_left_out(tmp_path: Path) -> None:
    noted = {"role": "assistant", "content": "b", "feedback": "hm", "sources": None}
    found = load(tmp_path, {"messages": [MESSAGES[0], noted]}).detection
    assert "not used of the turns: feedback" in found.evidence


def test_answers_marked_as_bad_are_not_trained(tmp_path: Path) -> None:
    """As TRL writes unpaired preferences: a label for each answer."""
    rows = [{"prompt": "a", "completion": f"b{at}", "label": at > 1} for at in range(6)]
    loaded = load(tmp_path, rows)
    assert [to_example(row).turns[1]["content"] for row in loaded.dataset] == ["b2", "b3", "b4", "b5"]
    assert "2 rows are not trained: column 'label' marks the answer as bad" in loaded.warnings
    evidence = "2 of 6 sampled rows have an answer that 'label' marks as bad (false); they are not trained"
    assert evidence in loaded.detection.evidence


def test_numeric_label_does_not_mark_answers(tmp_path: Path) -> None:
    rows = [{"prompt": f"a{at}", "completion": f"b{at}", "label": at} for at in range(6)]
    loaded = load(tmp_path, rows)
    assert len(loaded.dataset) == 6
    assert loaded.detection.columns.label is None


@pytest.mark.parametrize("row", [{"id": 4, "label": 1}, {"a": 1.5, "b": [1, 2]}, {}])
def test_rows_without_text_are_refused_with_what_is_there(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DataError, match="no known format fits") as caught:
        load(tmp_path, row)
    assert all(column in caught.value.message for column in row)


def test_a_wrong_column_name_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'qestion' \(data.columns.prompt\)") as caught:
        load(tmp_path, {"question": "a", "answer": "b"}, prompt="qestion")
    assert caught.value.hint == "Did you mean 'question'?"


def test_a_wrong_format_says_what_columns_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column fits format 'messages'; columns: question \(text\)"):
        load(tmp_path, {"question": "a", "answer": "b"}, "messages")


def test_rows_of_another_schema_are_bad_rows_with_the_nearest_column(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = '{"question": "a", "answer": "b"}\n'
    path.write_text(good * 5 + '{"question": "a", "anwser": "b"}\n' + good)
    with pytest.raises(DataError, match=r"mixed.jsonl:6: no column 'answer'. Did you mean 'anwser'\?"):
        load_source(SourceSpec(source=str(path)))
    loaded = load_source(SourceSpec(source=str(path)), skip_bad_rows=True)
    assert (len(loaded.dataset), loaded.bad_row_count) == (6, 1)


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([], "no turns"),
        ([{"role": "narrator", "content": "x"}], 'turn 1: unknown role the text "narrator"'),
        ([{"role": "user"}], "turn 1: no content"),
        ([{"role": "user", "content": 3}], "turn 1, content holds the number 3 where text belongs"),
        ([{"role": "user", "content": "x"}, "hello"], 'turn 2: the text "hello" where an object'),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "only text can be trained"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}], "without the name"),
        ([{"content": "x"}], "turn 1: no role"),
    ],
)
def test_a_bad_turn_is_named(tmp_path: Path, turns: Any, problem: str) -> None:
    path = tmp_path / "turns.jsonl"
    good = {"messages": MESSAGES}
    path.write_text("".join(json.dumps(row) + "\n" for row in [good, good, {"messages": turns}, good]))
    with pytest.raises(DataError) as caught:
        load_source(SourceSpec(source=str(path)), sample_rows=10)
    assert caught.value.message.startswith("turns.jsonl:3: column 'messages'")
    assert problem in caught.value.message
