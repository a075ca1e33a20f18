"""Malformed data files: whatever the bytes, one clear error or counted skips, and never a half-written cache."""

import gzip
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlora_tui.config.data import Format, SourceSpec
from qlora_tui.data import row_cache
from qlora_tui.data.load import load_source, to_example
from qlora_tui.errors import QloraError

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "é" * n}], "id": n}
    for n in range(8)
]
SPLICES = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe9",
    b"\r\n",
    b"\r",
    b"\n",
    b'"',
    b"{",
    b"]",
    b",",
    b"\\ud800",
    b"\\u0000",
    b"\x1b[31m",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"role": "user", "role": "user",',
    b"null",
    b"A" * 100_000,
]
NAMES = [
    "d.jsonl", "d.json", "d.csv", "d.tsv", "d.parquet", "d.arrow", "d.txt", "d.jsonl.gz", "d.jsonl.zst", "d", "d.bin",
    "d.csv.gz",
]  # fmt: skip
PAIRS = [{"prompt": f"p {n}", "completion": f"c {n}"} for n in range(8)]


def _arrow(rows: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


VALID = [
    _jsonl(ROWS),
    json.dumps(ROWS, indent=2).encode(),
    json.dumps({"data": PAIRS}).encode(),
    json.dumps({"prompt": ["a"] * 5, "completion": ["b"] * 5}).encode(),
    b"prompt,completion\n" + b'"a ""x"", b","c\nd"\n' * 5,
    b"prompt\tcompletion\na\tb\n",
    _parquet(ROWS),
    _arrow(PAIRS),
    gzip.compress(_jsonl(ROWS), mtime=0),
    zstandard.compress(_jsonl(PAIRS)),
    b"one line\n\nanother passage\nof two lines\n",
    _jsonl([{"text": "### Human: a### Assistant: b"}] * 5),
    _jsonl([{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}] * 5),
    _jsonl([{"text": "<human>: a\n<bot>: b"}] * 5),
    _jsonl([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 5),
    "".join(json.dumps(row) + "\n" for row in PAIRS).encode("utf-16"),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
keys = st.sampled_from(
    [
        "messages",
        "role",
        "content",
        "from",
        "value",
        "prompt",
        "completion",
        "text",
        "chosen",
        "instances",
        "tools",
        "a",
    ]
)
turns = st.lists(st.dictionaries(keys | st.just("tool_calls"), values, max_size=4), max_size=4)
odd_rows = st.lists(st.dictionaries(keys, values | turns, max_size=4) | values, min_size=1, max_size=6).map(_jsonl)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.integers(0, 40))
        match draw(st.sampled_from(["cut", "splice", "flip", "end", "repeat"])):
            case "cut":
                del content[start:stop]
            case "splice":
                content[start:start] = draw(st.sampled_from(SPLICES))
            case "flip":
                content[start:stop] = bytes(byte ^ 0x55 for byte in content[start:stop])
            case "end":
                del content[start:]
            case "repeat":
                content[start:start] = content[start:stop] * 3
    return bytes(content)


malformed = mangled() | odd_rows | st.binary(max_size=200)
modes = st.fixed_dictionaries({"skip_bad_rows": st.booleans(), "sample_rows": st.sampled_from([None, None, 3])})


def check(folder: Path, content: bytes, name: str, format_name: Format, mode: dict[str, Any]) -> None:
    """Load the bytes; only a QloraError may come out, and every cache that is there must be whole."""
    path = folder / name
    path.write_bytes(content)
    try:
        loaded = load_source(SourceSpec(source=str(path), format=format_name), **mode)
        examples = [to_example(row) for row in loaded.dataset]
        assert examples
        assert all(example.turns or example.text for example in examples)
    except QloraError as error:
        assert error.message
        assert "Traceback" not in error.message
    path.unlink()
    names = [path.name for path in row_cache.folder().glob("*")]
    assert not [name for name in names if name.startswith(".")], "a half-written cache was left"
    for key in names:
        found = row_cache.find(key)
        assert found is not None
        with pa.memory_map(str(found[0])) as source:
            assert pa.ipc.open_stream(source).read_all().schema.equals(row_cache.schema())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("fuzz")
    before = os.environ.get("QLORA_TUI_HOME")
    os.environ["QLORA_TUI_HOME"] = str(home / "home")
    yield home
    if before is None:
        del os.environ["QLORA_TUI_HOME"]
    else:
        os.environ["QLORA_TUI_HOME"] = before


def _forget(folder: Path) -> None:
    """Start from an empty cache, so that checking all caches after each file stays quick."""
    import shutil

    shutil.rmtree(row_cache.folder(), ignore_errors=True)


formats = st.sampled_from([*itertools.repeat("auto", len(get_args(Format))), *get_args(Format)])


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=malformed, name=st.sampled_from(NAMES), format_name=formats, mode=modes)
def test_malformed_files_give_one_clear_error(
    folder: Path, content: bytes, name: str, format_name: Format, mode: dict[str, Any]
) -> None:
    _forget(folder)
    check(folder, content, name, format_name, mode)


@pytest.mark.long
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=malformed, name=st.sampled_from(NAMES), format_name=formats, mode=modes)
def test_thousands_of_malformed_files_give_one_clear_error_each(
    folder: Path, content: bytes, name: str, format_name: Format, mode: dict[str, Any]
) -> None:
    _forget(folder)
    check(folder, content, name, format_name, mode)
