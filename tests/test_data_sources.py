"""Local sources: every kind of file loads, and every mistake in one is named with its place."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from data_files import ANSWERS, GOOD, LINES, ROWS, answers, load, put

from qlora_tui.config.data import SourceSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.choices import file_choices
from qlora_tui.data.load import load_source
from qlora_tui.errors import DataError, NotFoundError
from qlora_tui.models.choices import folder_choices
from qlora_tui.models.location import local_folder
from qlora_tui.runs.freeze import frozen


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))


def _table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def _write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _table().schema) as writer:
        writer.write_table(_table())


WRITERS = {
    "rows.jsonl": lambda path: put(path, LINES),
    "rows.jsonl.gz": lambda path: put(path, gzip.compress(LINES.encode())),
    "rows.jsonl.zst": lambda path: put(path, zstandard.compress(LINES.encode())),
    "rows.json": lambda path: put(path, json.dumps(ROWS, indent=2)),
    "wrapped.json": lambda path: put(path, json.dumps({"data": ROWS})),
    "columns.json": lambda path: put(path, _table().to_pandas().to_json()),
    "lines.json": lambda path: put(path, LINES),
    "rows.csv": lambda path: put(path, "prompt,completion\n" + "".join(f"p{n},é{n}\n" for n in range(10))),
    "semicolon.csv": lambda path: put(path, "prompt;completion\r\n" + "".join(f"p{n};é{n}\r\n" for n in range(10))),
    "rows.tsv": lambda path: put(path, "prompt\tcompletion\n" + "".join(f"p{n}\té{n}\n" for n in range(10))),
    "rows.parquet": lambda path: pq.write_table(_table(), path),
    "rows.arrow": _write_arrow,
    "no_suffix": lambda path: put(path, LINES),
    "bom.jsonl": lambda path: put(path, b"\xef\xbb\xbf" + LINES.encode()),
    "utf16.jsonl": lambda path: put(path, LINES.encode("utf-16")),
    "utf16_without_mark.jsonl": lambda path: put(path, LINES.encode("utf-16-le")),
    "crlf.jsonl": lambda path: put(path, LINES.replace("\n", "\r\n")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert answers(load(path)) == ANSWERS


def test_text_is_read_by_line_or_by_passage(tmp_path: Path) -> None:
    by_line = load(put(tmp_path / "a.txt", "one\ntwo\n"))
    by_passage = load(put(tmp_path / "b.txt", "one\nmore\n\ntwo\n"))
    assert [row["text"] for row in by_line.dataset] == ["one", "two"]
    assert [row["text"] for row in by_passage.dataset] == ["one\nmore", "two"]
    assert "one row per passage" in by_passage.notes[0]


def test_a_folder_is_divided_into_splits_by_its_file_names(tmp_path: Path) -> None:
    put(tmp_path / "set" / "train-00000.jsonl", LINES)
    put(tmp_path / "set" / "train-00001.jsonl.gz", gzip.compress(LINES.encode()))
    put(tmp_path / "set" / "test" / "part.jsonl", LINES)
    put(tmp_path / "set" / "README.md", "not data")
    assert answers(load(tmp_path / "set")) == ANSWERS * 2
    assert answers(load(tmp_path / "set", purpose="eval")) == ANSWERS
    with pytest.raises(DataError, match=r"has no split 'vaildation'; its splits: (test, train|train, test)"):
        load(tmp_path / "set", split="vaildation")


def test_a_split_that_nobody_named_is_told(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        put(tmp_path / "data" / name, GOOD)
    assert load(tmp_path / "data").notes == ["split train is read; there is also test"]
    assert load(tmp_path / "data", split="train").notes == []
    assert load(tmp_path / "data" / "test.jsonl").notes == []


def test_saved_datasets_load(tmp_path: Path) -> None:
    one = datasets.Dataset.from_list(ROWS)
    one.select(range(5, 10)).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(tmp_path / "many")
    assert answers(load(tmp_path / "one")) == ANSWERS[5:]
    assert answers(load(tmp_path / "many")) == ANSWERS
    assert answers(load(tmp_path / "many", split="test")) == ANSWERS[:1]


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train[:3]", ANSWERS[:3]), ("train[-2:]", ANSWERS[-2:]), ("train[50%:70%]", ANSWERS[5:7])],
)
def test_splits_are_cut(tmp_path: Path, split: str, expected: list[str]) -> None:
    assert answers(load(put(tmp_path / "a.jsonl", LINES), split=split)) == expected


@pytest.mark.parametrize("split", ["train[:0]", "train[100:]", "train[100:200]", "train[5:2]"])
def test_a_slice_without_rows_says_how_many_there_are(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match="no usable row") as caught:
        load(put(tmp_path / "a.jsonl", LINES), split=split)
    assert caught.value.hint == f"The slice is empty; the split has {len(ANSWERS)} rows."


@pytest.mark.parametrize("split", ["train[", "train[a:b]", "[1:2]"])
def test_a_broken_split_shows_how_one_is_written(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match="is no split") as caught:
        load(put(tmp_path / "a.jsonl", LINES), split=split)
    assert "train[:1000]" in caught.value.hint


def test_the_starter_has_training_and_held_out_rows() -> None:
    train = load_source(SourceSpec(source="starter"))
    held_out = load_source(SourceSpec(source="starter"), purpose="eval")
    assert len(train.dataset) > len(held_out.dataset) > 0
    assert train.fingerprint != held_out.fingerprint


BAD_LINES = {
    "broken": ('{"prompt": "a", "completion": }', "bad.jsonl:3: column 31: broken JSON", "completion"),
    "cut": ('{"prompt": "a', "bad.jsonl:3: column 14: broken JSON: the line ends inside a text", '"a'),
    "extra": ('{"prompt": "a", "completion": "b"} x', "column 36: broken JSON: Extra data", "x"),
    "list": ("[1, 2]", "bad.jsonl:3: is a list of 2, expected an object", ""),
    "duplicate": ('{"prompt": "a", "prompt": "c", "completion": "b"}', "key 'prompt' appears twice", ""),
    "number": ('{"prompt": "c", "completion": NaN}', "column 'completion' contains nan, which is not a number", ""),
    "texts": ('{"prompt": "a", "completion": {"x": 1}}', "column 'completion' holds an object", ""),
    "null": ('{"prompt": "a", "completion": null}', "column 'completion' is empty (null)", ""),
    "missing": ('{"prompt": "a"}', "no column 'completion'", ""),
    "nul": ('{"prompt": "a\\u0000", "completion": "b"}', "null byte at character 2", ""),
    "surrogate": ('{"prompt": "a\\ud800", "completion": "b"}', "lone surrogate (U+D800) at character 2", ""),
    "deep": ('{"prompt": ' + "[" * 100_000 + "}", "nested too deeply", ""),
    "digits": ('{"prompt": ' + "9" * 10_000 + "}", "a number that cannot be read", ""),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_can_be_skipped(tmp_path: Path, name: str) -> None:
    line, problem, snippet = BAD_LINES[name]
    path = put(tmp_path / "bad.jsonl", GOOD * 2 + line + "\n" + GOOD)
    with pytest.raises(DataError) as caught:
        load(path)
    assert caught.value.message.startswith("bad.jsonl:3: ")
    assert problem in caught.value.message
    assert snippet in caught.value.message
    assert len(caught.value.message) < 400
    assert "skip" in caught.value.hint
    loaded = load(path, skip_bad_rows=True)
    assert (len(loaded.dataset), loaded.bad_row_count, loaded.bad_rows[0].where) == (3, 1, "bad.jsonl:3")


def test_latin_1_names_line_column_and_byte(tmp_path: Path) -> None:
    path = put(tmp_path / "l.jsonl", GOOD.encode() + b'{"prompt": "caf\xe9", "completion": "b"}\n')
    with pytest.raises(DataError, match=r"l.jsonl:2: column 16: byte 0xe9 is not UTF-8"):
        load(path)
    assert load(path, skip_bad_rows=True).bad_row_count == 1


def test_a_broken_document_names_line_and_column(tmp_path: Path) -> None:
    text = json.dumps(ROWS, indent=2).replace('"p7"', "p7")
    with pytest.raises(DataError, match=r"d.json:31: column 15: broken JSON.*p7") as caught:
        load(put(tmp_path / "d.json", text), skip_bad_rows=True)
    assert ".jsonl" in caught.value.hint


def test_a_broken_csv_row_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "prompt,completion\na,b\nonly one\nc,d\n")
    with pytest.raises(DataError, match=r"t.csv:3: has 1 field, the header has 2"):
        load(path)
    assert load(path, skip_bad_rows=True).bad_row_count == 1


def test_a_quote_that_never_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t.csv:\d+: broken csv"):
        load(put(tmp_path / "t.csv", 'prompt,completion\na,"b\nc,d\n'))


def test_a_row_of_ten_megabytes_loads(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    loaded = load(put(tmp_path / "long.jsonl", GOOD + json.dumps({"prompt": "c", "completion": long}) + "\n"))
    assert answers(loaded)[1] == long


def test_a_row_too_long_to_be_tokenized_is_named(tmp_path: Path) -> None:
    huge = json.dumps({"prompt": "c", "completion": "x" * (33 << 20)}) + "\n"
    path = put(tmp_path / "huge.jsonl", GOOD + huge)
    with pytest.raises(DataError, match=r"huge.jsonl:2: holds 34,603,009 characters .* may hold 33,554,432"):
        load(path)
    assert load(path, skip_bad_rows=True).bad_row_count == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        load(put(tmp_path / "empty.json", content))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.zip", b"PK\x03\x04....", "zip archive"),
        ("a.parquet", b"PAR1 nonsense PAR1", "damaged parquet"),
        ("a.parquet", b"text", "is not a parquet file"),
        ("a.arrow", b"ARROW1\x00\x00nonsense", "damaged arrow"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-30], "damaged or cut short"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfdnonsense", "damaged or cut short"),
        ("a.bin", bytes(range(256)), "cannot tell what kind"),
    ],
)
def test_unreadable_files_say_what_they_are(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load(put(tmp_path / name, content))


def test_a_misspelt_path_gets_the_nearest_one(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", LINES)
    with pytest.raises(NotFoundError, match="no file or folder") as caught:
        load(tmp_path / "trian.jsonl")
    assert "train.jsonl" in caught.value.hint


NO_FILE = ["~nobody-of-that-name", "~nobody-of-that-name/rows.jsonl", "/tmp/" + "a" * 300 + ".jsonl", "/tmp/a\0b.jsonl"]


@pytest.mark.parametrize("text", NO_FILE)
def test_a_text_that_can_name_no_file_is_told_as_a_missing_one(text: str) -> None:
    with pytest.raises(NotFoundError, match=r"no (data source|file or folder)"):
        load(text)


@pytest.mark.parametrize("text", NO_FILE)
def test_a_text_that_can_name_no_file_offers_none_to_choose(text: str) -> None:
    assert file_choices(text) == []
    assert folder_choices(text) == []
    config = RunConfig.model_validate({"data": {"source": text}, "model": {"id": text}})
    assert local_folder(config.model) == Path(text)
    assert frozen(config).data.source == text


def test_a_path_in_an_empty_folder_is_not_told_that_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as missing:
        load(tmp_path / "rows.jsonl")
    assert missing.value.hint == f"Looked in {tmp_path}."


def test_a_path_that_climbs_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=r"no file or folder \.\./nothing"):
        load_source(SourceSpec(source="../nothing"))


def test_a_text_that_runs_over_its_line_is_said_in_words(tmp_path: Path) -> None:
    broken = '[{"prompt": "p", "completion": "a"},\n {"prompt": "p, "completion": "a\n"}]'
    with pytest.raises(DataError, match=r"a.json:2: column \d+: broken JSON: "):
        load(put(tmp_path / "a.json", broken))
    with pytest.raises(DataError, match=r"a.json:1: column \d+: broken JSON: the line ends inside a text"):
        load(put(tmp_path / "a.json", '[{"prompt": "p", "completion": "a\n"}]'))


def test_a_misspelt_known_set_gets_the_nearest_one() -> None:
    with pytest.raises(NotFoundError) as caught:
        load_source(SourceSpec(source="alpca"))
    assert "'alpaca'" in caught.value.hint


def test_loading_brings_in_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", LINES)
    program = (
        "import sys\nfrom qlora_tui.data import load\n"
        "assert not {'datasets', 'pyarrow', 'huggingface_hub'} & set(sys.modules)\n"
        "from qlora_tui.config.data import SourceSpec\n"
        "load.load_source(SourceSpec(source=sys.argv[1]))\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
