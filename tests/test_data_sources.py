"""Local sources: every kind of file loads, every mistake in one is named with its place, and caches are whole."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import zstandard
from typer.testing import CliRunner

from qlora_tui.cli import data_sources
from qlora_tui.config.data import SourceSpec
from qlora_tui.data import content, row_cache, sweeping
from qlora_tui.data.load import Loaded, load_source, to_example
from qlora_tui.errors import DataError, NotFoundError, StorageError, UsageError

ROWS: list[dict[str, Any]] = [{"prompt": f"p{n}", "completion": f"é{n}"} for n in range(10)]
ANSWERS = [row["completion"] for row in ROWS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))


def load(path: Path, **options: Any) -> Loaded:
    split = options.pop("split", None)
    return load_source(SourceSpec(source=str(path), split=split), **options)


def answers(loaded: Loaded) -> list[str]:
    return [to_example(row).turns[-1]["content"] for row in loaded.dataset]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


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
    "rows.csv": lambda path: put(path, "prompt,completion\n" + "".join(f"p,é{n}\n" for n in range(10))),
    "semicolon.csv": lambda path: put(path, "prompt;completion\r\n" + "".join(f"p;é{n}\r\n" for n in range(10))),
    "rows.tsv": lambda path: put(path, "prompt\tcompletion\n" + "".join(f"p\té{n}\n" for n in range(10))),
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


GOOD = '{"prompt": "a", "completion": "b"}\n'
BAD_LINES = {
    "broken": ('{"prompt": "a", "completion": }', "bad.jsonl:3: column 31: broken JSON", "completion"),
    "cut": ('{"prompt": "a', "bad.jsonl:3: column 14: broken JSON: the line ends inside a text", '"a'),
    "extra": ('{"prompt": "a", "completion": "b"} x', "column 36: broken JSON: Extra data", "x"),
    "list": ("[1, 2]", "bad.jsonl:3: holds a list of 2 where an object", ""),
    "duplicate": ('{"prompt": "a", "prompt": "c", "completion": "b"}', "key 'prompt' appears twice", ""),
    "number": ('{"prompt": "a", "completion": 4}', "column 'completion' holds the number 4 where text belongs", ""),
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
    loaded = load(put(tmp_path / "long.jsonl", GOOD + json.dumps({"prompt": "a", "completion": long}) + "\n"))
    assert answers(loaded)[1] == long


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
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:-30], "damaged or cut short"),
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


def test_the_second_load_reads_the_cache_and_equals_the_first(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", LINES)
    stages: list[str] = []
    first = load(path, on_progress=lambda stage, done, total: stages.append(stage))
    assert "reading" in stages
    stages.clear()
    second = load(path, on_progress=lambda stage, done, total: stages.append(stage))
    assert "reading" not in stages
    assert (second.fingerprint, answers(second)) == (first.fingerprint, answers(first))


def test_rows_that_nothing_read_for_long_are_deleted(tmp_path: Path) -> None:
    load(put(tmp_path / "old.jsonl", LINES))
    (old,) = row_cache.folder().iterdir()
    load(put(tmp_path / "used.jsonl", LINES.replace("p3", "used")))
    used = next(home for home in row_cache.folder().iterdir() if home != old)
    for home in (old, used):
        os.utime(home, (0, 0))
    load(tmp_path / "used.jsonl")
    load(put(tmp_path / "new.jsonl", LINES.replace("p3", "new")))
    left = set(row_cache.folder().iterdir())
    assert old not in left
    assert used in left
    assert len(left) == 2


def test_the_oldest_rows_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_UNUSED_S", 1e12)
    for number in range(3):
        load(put(tmp_path / f"{number}.jsonl", LINES.replace("p3", f"n{number}")))
        (new,) = (home for home in row_cache.folder().iterdir() if home.stat().st_mtime > 1000)
        os.utime(new, (1 + number, 1 + number))
    one_bytes = sum(file.stat().st_size for file in new.iterdir())
    monkeypatch.setattr(sweeping, "MAX_BYTES", 2 * one_bytes)
    load(put(tmp_path / "last.jsonl", LINES.replace("p3", "n9")))
    ages = sorted(int(home.stat().st_mtime) for home in row_cache.folder().iterdir())
    assert ages[:2] == [2, 3] and len(ages) == 3


def test_a_large_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that keeps size and time of change, as a copying program can, is noticed all the same."""
    monkeypatch.setattr(content, "_REMEMBERED_FROM_BYTES", 0)
    monkeypatch.setattr(content, "_SETTLED_S", 0.0)
    path = put(tmp_path / "a.jsonl", LINES)
    stages: list[str] = []

    def fingerprint() -> str:
        stages.clear()
        return load(path, on_progress=lambda stage, done, total: stages.append(stage)).fingerprint

    first = fingerprint()
    assert "hashing" in stages
    assert fingerprint() == first
    assert "hashing" not in stages
    times = path.stat()
    path.write_text(LINES.replace("p3", "q3"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint() != first
    assert "hashing" in stages


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = load(put(tmp_path / "one" / "a.jsonl", LINES)).fingerprint
    assert load(put(tmp_path / "two" / "a.jsonl", LINES)).fingerprint == first
    assert load(put(tmp_path / "three" / "a.jsonl", LINES.replace("p3", "q3"))).fingerprint != first
    assert load(tmp_path / "one" / "a.jsonl", split="train[:5]").fingerprint != first


def test_a_cache_with_skipped_rows_does_not_hide_them(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", GOOD * 3 + "{\n")
    assert load(path, skip_bad_rows=True).bad_row_count == 1
    assert load(path, skip_bad_rows=True).bad_row_count == 1
    with pytest.raises(DataError, match=r"a\.jsonl:4"):
        load(path)


def test_a_failed_load_leaves_no_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(put(tmp_path / "a.jsonl", GOOD * 5000 + "{\n"))
    assert list(row_cache.folder().iterdir()) == []


def test_a_full_disk_says_so_and_leaves_no_cache(tmp_path: Path) -> None:
    """The file size limit stands in for a full disk: the same failed write, inside the real process."""
    path = put(tmp_path / "a.jsonl", (json.dumps({"prompt": "a" * 500, "completion": "b"}) + "\n") * 20000)
    program = (
        "import resource, signal, sys\n"
        "from qlora_tui.config.data import SourceSpec\n"
        "from qlora_tui.data.load import load_source\n"
        "from qlora_tui.errors import StorageError\n"
        "import datasets\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: load_source(SourceSpec(source=sys.argv[1]))\n"
        "except StorageError as error: print(error.message, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert "cannot write the cache of rows" in done.stdout, done.stderr
    assert list(row_cache.folder().iterdir()) == []


def test_a_quick_look_reads_only_the_start(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", LINES + GOOD * 500 + "{ broken far behind\n")
    loaded = load(path, sample_rows=4)
    assert answers(loaded) == ANSWERS[:4]
    assert loaded.fingerprint.startswith("quick:")
    assert not row_cache.folder().exists()


def test_streaming_gives_the_same_rows_in_each_pass(tmp_path: Path) -> None:
    loaded = load(put(tmp_path / "a.jsonl", LINES), streaming=True, split="train[:6]")
    assert isinstance(loaded.dataset, datasets.IterableDataset)
    assert answers(loaded) == answers(loaded) == ANSWERS[:6]


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


app = typer.Typer()
data_sources.register(app)


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


def test_convert_counts_what_it_skips(tmp_path: Path) -> None:
    done = run("convert", str(put(tmp_path / "a.jsonl", GOOD * 2 + "{\n")), "--skip-bad-rows")
    assert len(done.stdout.splitlines()) == 2
    assert "1 rows skipped" in done.stderr
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
    listed = json.loads(run("list", "--json").stdout)
    names = {one["name"] for one in listed}
    assert {"starter", "oasst1", "hh-rlhf", "alpaca", "alpaca-clean", "self-instruct", "longform"} <= names
    assert {"chip2", "unnatural-instructions", "flan-v2"} <= names
    assert all(one["license"] and one["rows"] and one["format"] for one in listed)
    text = run("list").stdout
    assert all(name in text for name in names)
