"""No part of a row is lost silently: late columns, unused text, repeated prompts, null padding, bad rows."""

import csv
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlora_tui.config.data import ColumnMap, SourceSpec
from qlora_tui.data import xlsx_reader
from qlora_tui.data.detect import UnclearFormatError
from qlora_tui.data.load import Loaded, load_source, to_example
from qlora_tui.errors import DataError, QloraError

Row = dict[str, Any]


def written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(source: str, *, skip_bad_rows: bool = False, **spec: Any) -> Loaded:
    return load_source(SourceSpec.model_validate({"source": source, **spec}), skip_bad_rows=skip_bad_rows)


def said(loaded: Loaded, row: int = 0) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in to_example(loaded.dataset[row]).turns]


def late(path: Path, name: str, value: Any) -> str:
    rows = [{"instruction": f"Name town {at}.", "output": f"Rome {at}"} for at in range(250)]
    rows[230][name] = value
    return written(path, rows)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("input", "the lamp", "context"),
        ("context", "the lamp", "context"),
        ("system", "Be short.", "system"),
        ("tools", [{"type": "function", "function": {"name": "f"}}], "tools"),
        ("history", [["Who?", "Bo."]], "history"),
    ],
)
def test_a_known_column_after_the_sample_stops_the_load(tmp_path: Path, name: str, value: Any, kind: str) -> None:
    source = late(tmp_path / "rows.jsonl", name, value)
    with pytest.raises(DataError, match=f"rows.jsonl:231: column '{name}' first appears here") as caught:
        load(source)
    assert f'data.columns.{kind} = "{name}"' in caught.value.hint


def test_late_column_named_explicitly_is_trained(tmp_path: Path) -> None:
    source = late(tmp_path / "rows.jsonl", "input", "the lamp")
    loaded = load(source, columns={"context": "input"})
    assert to_example(loaded.dataset[230]).turns[0]["context"] == "the lamp"
    assert len(load(source, ignore_columns=["input"]).dataset) == 250


def test_late_columns_that_are_not_trained_are_named_also_from_the_cache(tmp_path: Path) -> None:
    source = late(tmp_path / "rows.jsonl", "label", "good")
    for _ in range(2):
        notes = load(source).notes
        assert "columns of later rows that are not trained: label (first in rows.jsonl:231)" in notes


def test_late_text_of_any_name_stops_the_load_and_metadata_does_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'passage' first appears here"):
        load(late(tmp_path / "text.jsonl", "passage", "The lamp is in the hall."))
    assert len(load(late(tmp_path / "id.jsonl", "row_id", "a b")).dataset) == 250
    assert len(load(late(tmp_path / "null.jsonl", "input", None)).dataset) == 250


INSTRUCTED = [
    {"instruction": "Answer in one word.", "question": f"What colour is lamp {at}?", "answer": f"green {at}"}
    for at in range(4)
]


def test_a_column_of_text_that_no_format_uses_stops_detection(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", INSTRUCTED)
    with pytest.raises(UnclearFormatError, match="column 'question' would not be trained") as caught:
        load(source)
    assert caught.value.choices[0]["data.columns.prompt"] == "question"
    assert caught.value.choices[0]["data.columns.system"] == "instruction"
    assert caught.value.choices[-1] == {"data.ignore_columns": ["question"]}


def test_suggested_settings_for_unused_text_work(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", INSTRUCTED)
    loaded = load(source, format="two-column", columns={"prompt": "question", "system": "instruction"})
    assert said(loaded) == [
        ("system", "Answer in one word."),
        ("user", "What colour is lamp 0?"),
        ("assistant", "green 0"),
    ]
    assert not loaded.warnings
    whole = load(source, format="alpaca", columns={"context": "question"})
    assert to_example(whole.dataset[0]).turns[0]["context"] == "What colour is lamp 0?"


def test_explicit_format_reports_unused_text(tmp_path: Path) -> None:
    columns = {"prompt": "instruction", "response": "answer"}
    loaded = load(written(tmp_path / "rows.jsonl", INSTRUCTED), format="alpaca", columns=columns)
    assert any("column 'question' contains text that is not trained" in warning for warning in loaded.warnings)


@pytest.mark.parametrize(
    "extra",
    [
        {"id": "row 7 of the set", "source": "a web page"},
        {"text": "Below is a task. Name town {at}. Rome {at}"},
        {"prompt_copy": "town {at}."},
        {"category": "closed qa {at}"},
        {"constant": "the same words everywhere"},
        {"code": "x{at}"},
    ],
)
def test_metadata_and_copies_do_not_stop_detection(tmp_path: Path, extra: Row) -> None:
    rows = [
        {"instruction": f"Name town {at}.", "output": f"Rome {at}", **{k: v.format(at=at) for k, v in extra.items()}}
        for at in range(5)
    ]
    loaded = load(written(tmp_path / "rows.jsonl", rows))
    assert loaded.detection.format == "alpaca"
    assert any(next(iter(extra)) in note for note in loaded.notes)


def test_one_prompt_with_many_answers_stops_detection(tmp_path: Path) -> None:
    rows = [{"prompt": "Write a line.", "completion": f"Line {at}."} for at in range(6)]
    source = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UnclearFormatError, match="6 of 6 sampled rows share their prompt with a row") as caught:
        load(source)
    assert caught.value.choices[0]["data.format"] == "prompt-completion"
    assert len(load(source, format="prompt-completion").dataset) == 6


def test_history_and_context_are_part_of_the_conversation(tmp_path: Path) -> None:
    row = {"instruction": "And then?", "input": "", "output": "He left.", "history": [["Who came?", "Bo came."]]}
    loaded = load(written(tmp_path / "history.jsonl", [row]))
    assert [text for _, text in said(loaded)] == ["Who came?", "Bo came.", "And then?", "He left."]
    row = {"query": "Where is lamp 0?", "context": "Lamp 0 is in hall 0.", "response": "Hall 0."}
    loaded = load(written(tmp_path / "context.jsonl", [row]))
    assert to_example(loaded.dataset[0]).turns[0]["context"] == "Lamp 0 is in hall 0."


def test_numbers_and_booleans_are_trained_as_text(tmp_path: Path) -> None:
    answers = [2, "blue", True, 3.14, "Bo"]
    rows = [{"question": f"q{at}?", "answer": answer} for at, answer in enumerate(answers)]
    loaded = load(written(tmp_path / "rows.jsonl", rows))
    assert [said(loaded, at)[1][1] for at in range(5)] == ["2", "blue", "true", "3.14", "Bo"]


def test_numeric_table_has_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(written(tmp_path / "rows.jsonl", [{"input": at, "output": at * 2} for at in range(5)]))


def test_null_padding_of_parquet_structs_is_not_trained(tmp_path: Path) -> None:
    import datasets

    def row(name: str, arguments: Row) -> Row:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        properties = {key: {"type": "string"} for key in arguments}
        schema = {"type": "object", "properties": properties}
        return {
            "messages": turns,
            "tools": [{"type": "function", "function": {"name": name, "parameters": schema}}],
        }

    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([row("weather", {"city": "Rome"}), row("play", {"genre": "jazz"})]).to_parquet(path)
    example = to_example(load(str(path)).dataset[0])
    assert example.turns[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert example.tools[0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}


def test_conversations_that_pandas_wrote_into_csv_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "It's 1?"}, {"role": "assistant", "content": "Yes"}]
    numpy_style = "[" + "\n ".join(map(repr, turns)) + "]"
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "messages"], [0, repr(turns)], [1, numpy_style]])
    loaded = load(str(path))
    assert said(loaded, 0) == said(loaded, 1) == [("user", "It's 1?"), ("assistant", "Yes")]


def test_multiline_json_is_read_with_any_suffix(tmp_path: Path) -> None:
    rows = [{"question": f"q{at}?", "answer": f"a{at}"} for at in range(3)]
    pretty = tmp_path / "pretty.jsonl"
    pretty.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    array = tmp_path / "array.jsonl"
    array.write_text(json.dumps(rows, indent=2))
    lists = tmp_path / "lists.jsonl"
    turns = [{"role": "user", "content": "q0?"}, {"role": "assistant", "content": "a0"}]
    lists.write_text(f"{json.dumps(turns)}\n" * 3)
    for path in (pretty, array, lists):
        loaded = load(str(path))
        assert len(loaded.dataset) == 3
        assert said(loaded) == [("user", "q0?"), ("assistant", "a0")]


def test_an_excel_workbook_is_read_by_its_first_sheet(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    assert book.active is not None
    for line in [("question", "answer", None), ("q0?", 4), (None, None), ("q1?", "a1")]:
        book.active.append(line)
    path = tmp_path / "rows.xlsx"
    book.save(path)
    loaded = load(str(path))
    assert said(loaded, 0) == [("user", "q0?"), ("assistant", "4")]
    assert len(loaded.dataset) == 2
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"rows.xlsx: damaged workbook"):
        load(str(path))


def _book() -> Any:
    from openpyxl import Workbook

    book = Workbook()
    assert book.active is not None
    for line in [("question", "answer"), ("q0?", "a0")]:
        book.active.append(line)
    return book


def _encrypted(content: bytearray) -> None:
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for match in re.finditer(re.escape(mark), bytes(content)):
            content[match.start() + flags] |= 1


def _of_an_unknown_compression(content: bytearray) -> None:
    for match in re.finditer(re.escape(b"PK\1\2"), bytes(content)):
        content[match.start() + 10] = 97


def _with_broken_compression(content: bytearray) -> None:
    start = content.index(b"xl/worksheets/sheet1.xml") + len(b"xl/worksheets/sheet1.xml")
    content[start : start + 40] = bytes(byte ^ 0xFF for byte in content[start : start + 40])


@pytest.mark.parametrize("damage", [_encrypted, _of_an_unknown_compression, _with_broken_compression])
def test_workbook_that_cannot_be_unpacked_is_damaged(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    path = tmp_path / "rows.xlsx"
    _book().save(path)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows.xlsx: .*damaged"):
        load(str(path))


def test_workbook_beyond_row_limit_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx_reader, "_MAX_LINES", 1000)
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row r="1"><c r="A1" t="inlineStr"><is><t>question</t></is></c></row>'
        '<row r="999999999"><c r="A999999999" t="inlineStr"><is><t>q?</t></is></c></row></sheetData></worksheet>'
    )
    path = tmp_path / "rows.xlsx"
    _book().save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(path, "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, sheet if name.endswith("sheet1.xml") else whole.read(name))
    with pytest.raises(DataError, match=r"rows.xlsx: damaged workbook: more than 1,000 lines"):
        load(str(path))


def test_rows_skipped_as_bad_are_a_warning_with_their_reasons(tmp_path: Path) -> None:
    from qlora_tui.data.report import source_warnings

    rows = [{"question": f"q{at}?", "answer": f"a{at}"} for at in range(5)]
    loaded = load(written(tmp_path / "rows.jsonl", [*rows, {"question": "Only?"}]), skip_bad_rows=True)
    (warning,) = source_warnings([loaded])
    assert "1 row skipped as bad" in warning
    assert "rows.jsonl:6: no column 'answer'" in warning


CHATGPT: Row = {
    "title": "A chat",
    "current_node": "c",
    "mapping": {
        "root": {"message": None, "parent": None},
        "s": {"message": {"author": {"role": "system"}, "content": {"parts": [""]}}, "parent": "root"},
        "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["q?"]}}, "parent": "s"},
        "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["old"]}}, "parent": "a"},
        "c": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["a!"]}}, "parent": "a"},
    },
}
ASKED = [("user", "q?"), ("assistant", "a!")]
CALLED = {"name": "live", "description": "d", "parameters": {"id": {"type": "int, optional", "description": "i"}}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (CHATGPT, ASKED),
        (
            {
                "uuid": "7",
                "name": "A chat",
                "chat_messages": [{"sender": "human", "text": "q?"}, {"sender": "assistant", "text": "a!"}],
            },
            ASKED,
        ),
        (
            {"contents": [{"role": "user", "parts": [{"text": "q?"}]}, {"role": "model", "parts": [{"text": "a!"}]}]},
            ASKED,
        ),
        (
            {
                "systemInstruction": {"parts": [{"text": "s"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "q?"}]},
                    {"role": "model", "parts": [{"text": "a!"}]},
                ],
            },
            [("system", "s"), *ASKED],
        ),
        ({"conversations": ["q?", "a!"], "source": "x"}, ASKED),
        ({"id": "4", "data": ["q?", "a!"]}, ASKED),
        ({"source": "x", "conversation": [{"input": "q?", "output": "a!"}]}, ASKED),
        (
            {"system": "SYSTEM: s", "chat": "USER: q?\n\n\nASSISTANT: a! <|endoftext|>\n\n\n"},
            [("system", "s"), *ASKED],
        ),
        (
            {
                "id": "1",
                "title": "T",
                "context": "c",
                "question": "q?",
                "answers": {"text": ["a!"], "answer_start": [0]},
            },
            ASKED,
        ),
    ],
)
def test_rows_of_other_programs_become_conversations(tmp_path: Path, row: Row, expected: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    loaded = load(str(path))
    assert said(loaded) == expected
    assert any(note.startswith("rows are read as") for note in loaded.notes)


MESSAGE: Row = {"author": {"role": "user"}, "content": {"parts": ["q?"]}}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        *(
            ({"current_node": "a", "mapping": {"a": {"message": {**MESSAGE, **wrong}}}}, problem)
            for wrong, problem in [
                ({"author": "user"}, "'author' is not an object"),
                ({"metadata": [1]}, "'metadata' is not an object"),
                ({"content": {"parts": 1}}, "'parts' of a message is not a list"),
            ]
        ),
        (
            {"contents": [{"parts": [{"text": "q?"}]}, {"role": "model", "parts": [{"functionCall": "live"}]}]},
            "'functionCall' is not an object",
        ),
    ],
)
def test_wrong_type_in_export_is_a_bad_row(tmp_path: Path, row: Row, problem: str) -> None:
    path = written(tmp_path / "rows.jsonl", [CHATGPT, row])
    with pytest.raises(DataError, match=f"rows.jsonl:2: looks like .*, but {problem}"):
        load(path)
    assert said(load(path, skip_bad_rows=True)) == ASKED


@pytest.mark.parametrize("role", [[], {}, 1])
def test_chatgpt_message_with_invalid_role_is_skipped(tmp_path: Path, role: Any) -> None:
    nodes = {**CHATGPT["mapping"], "s": {"message": {**MESSAGE, "author": {"role": role}}, "parent": "root"}}
    path = written(tmp_path / "rows.jsonl", [{**CHATGPT, "mapping": nodes}])
    assert said(load(path)) == ASKED


def test_tool_sets_become_tool_calls(tmp_path: Path) -> None:
    calls = [{"name": "live", "arguments": {"id": 3}}]
    xlam = {"id": 0, "query": "q?", "answers": json.dumps(calls), "tools": json.dumps([CALLED])}
    example = to_example(load(written(tmp_path / "xlam.jsonl", [xlam])).dataset[0])
    assert example.turns[1]["tool_calls"][0]["function"] == calls[0]
    parameters = example.tools[0]["function"]["parameters"]
    assert parameters["properties"]["id"] == {"type": "integer", "description": "i"}
    assert parameters["required"] == []
    glaive = {
        "system": "SYSTEM: s",
        "chat": 'USER: q?\n\n\nASSISTANT: <functioncall> {"name": "f", "arguments": \'{"x": 1}\'} <|endoftext|>\n\n\n'
        'FUNCTION RESPONSE: {"y": 2}\n\n\nASSISTANT: a! <|endoftext|>',
    }
    turns = to_example(load(written(tmp_path / "glaive.jsonl", [glaive])).dataset[0]).turns
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert turns[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_the_articles_of_squad_are_unfolded(tmp_path: Path) -> None:
    asked = [{"question": f"q{at}?", "answers": [{"text": f"a{at}"}]} for at in range(2)]
    path = tmp_path / "squad.json"
    path.write_text(
        json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "c", "qas": asked}]}]})
    )
    loaded = load(str(path))
    assert said(loaded, 1) == [("user", "q1?"), ("assistant", "a1")]
    assert to_example(loaded.dataset[1]).turns[0]["context"] == "c"


NAMES = ("prompt", "question", "instruction", "input", "answer", "response", "output", "text", "id", "notes", "left")
VALUES = st.sampled_from(["a word", "one two three", "x", "", None, 4, 1.5, True, [1], {"k": "v"}, "other words here"])


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES)), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_first_suggestion_fixes_the_error(tmp_path: Path, rows: list[Row]) -> None:
    source = written(tmp_path / "rows.jsonl", rows)
    try:
        load_source(SourceSpec(source=source), sample_rows=10)
    except UnclearFormatError as error:
        if not error.choices:
            return
        first = error.choices[0]
        columns = {key.rpartition(".")[2]: value for key, value in first.items() if key.startswith("data.columns.")}
        spec: dict[str, Any] = {"source": source, "columns": ColumnMap(**columns)}  # type: ignore[arg-type]
        spec |= {key.removeprefix("data."): value for key, value in first.items() if "columns." not in key}
        try:
            load_source(SourceSpec.model_validate(spec), sample_rows=10)
        except QloraError as second:
            assert second.message != error.message
    except DataError:
        return
